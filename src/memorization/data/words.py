"""The 110 function words of TokenSwap (`tokenswap`, app. C.2-C.3), grouped by grammatical class.

The paper keeps, of the 500 most frequent words of a large corpus of American English, the closed classes
(determiners, prepositions, conjunctions, pronouns, wh-words, modals) and the auxiliaries be, do and have.
"""

_CLASSES = {
    "determiners": "a an all another any both each either every some that the these this those",
    "pronouns": "he her him himself his it its me my our she their them themselves they us we you your",
    "coordinators": "and but or",
    "prepositions": """
        about across after against along although among around as at because before behind between by during
        for from if in into like of off on out outside over since than though through to under until whether
        while with within without""",
    "wh_words": "how what when where which who why",
    "modals": "can could may might must should will would",
    "semi_modals": "need used",
    "auxiliaries": "am are be been being did do does doing had has have having is was were",
}

FUNCTION_WORDS_BY_CLASS: dict[str, tuple[str, ...]] = {name: tuple(words.split()) for name, words in _CLASSES.items()}
FUNCTION_WORDS: tuple[str, ...] = tuple(word for words in FUNCTION_WORDS_BY_CLASS.values() for word in words)
