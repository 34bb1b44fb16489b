"""The context of one row in another vocabulary: main token ids -> text -> auxiliary token ids, kept up to date.

After every step the ids are exactly those of the whole text encoded anew, at the cost of its last few words.
"""

import re
from typing import Any

from memorization.errors import UserError
from memorization.methods.swap_set import encode

# A place between two words that a pre-tokenizer splits whatever surrounds them.
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")
TAIL_WORDS = 12  # re-encode from an earlier place until so many words have come after it
KEPT_WORDS = 3  # words between a new place and the end of the text: none of them can change what is before it
TAIL_TOKENS = 8  # decode from an earlier place until so many tokens have come after it


class Tokenizers:
    """Two tokenizers, and what has to be known of them once.

    aux_bos: None puts the special tokens in front that the auxiliary tokenizer itself puts there; True its bos token;
    False none. Special tokens it would add behind the text are left out: the text goes on.
    """

    def __init__(self, main: Any, aux: Any, *, aux_bos: bool | None = None) -> None:
        self.main, self.aux = main, aux
        self._main_fast = getattr(main, "backend_tokenizer", main if hasattr(main, "id_to_token") else None)
        fast = getattr(aux, "backend_tokenizer", aux if hasattr(aux, "id_to_token") else None)
        # a truncation or padding that somebody set would show in direct calls
        self._fast = fast if fast is not None and fast.truncation is None and fast.padding is None else None
        self.front = self._front(aux_bos)
        self.fallback = self._fallback()
        self.splits_words = self._splits_words(fast)

    def decode(self, ids: list[int]) -> str:
        """Return the text of main tokens, without special tokens and with all spaces as they are."""
        if self._main_fast is not None:
            return self._main_fast.decode(ids, skip_special_tokens=True)
        return self.main.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def encode(self, text: str) -> list[int]:
        """Return auxiliary token ids of a text, without special tokens."""
        return self._fast.encode(text, add_special_tokens=False).ids if self._fast is not None else self._slow(text)

    def ends_character(self, ids: list[int], text: str) -> bool:
        """Whether no later token can change the text of these."""
        if not ids or text.endswith("\ufffd"):
            return False
        convert = getattr(self.main, "convert_ids_to_tokens", None) or self.main.id_to_token
        return not str(convert(ids[-1])).startswith("<0x")  # byte fallback decodes a run of bytes as a whole

    def _slow(self, text: str) -> list[int]:
        return encode(self.aux, text)

    def _front(self, aux_bos: bool | None) -> list[int]:
        if aux_bos is False:
            return []
        if aux_bos:
            if (bos := getattr(self.aux, "bos_token_id", None)) is None:
                raise UserError(
                    "aux_bos=True, but the auxiliary tokenizer has no bos token: pass aux_bos=None or False"
                )
            return [bos]
        encoded = self.aux.encode("a", add_special_tokens=True)
        full, plain = list(getattr(encoded, "ids", encoded)), self.encode("a")
        return next((full[:i] for i in range(len(full)) if full[i : i + len(plain)] == plain), [])

    def _fallback(self) -> list[int]:
        """What an empty text becomes."""
        ids = (getattr(self.aux, f"{name}_token_id", None) for name in ("bos", "eos", "cls", "pad"))
        return self.front or [i for i in ids if i is not None][:1]

    def _splits_words(self, fast: Any) -> bool:
        """Whether the tokenizer encodes words apart from each other, so that the end of a text can be encoded alone."""
        if self._fast is None or fast.pre_tokenizer is None:
            return False
        if any(_BETWEEN_WORDS.search(str(token)) for token in fast.get_added_tokens_decoder().values()):
            return False
        return len(fast.pre_tokenizer.pre_tokenize_str("alpha beta gamma")) >= 3


class RowText:
    """One row: its main ids, their text, and the text's auxiliary ids."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._with = tokenizers
        self._clear()

    def _clear(self) -> None:
        self.main_ids: list[int] = []
        self.text = ""
        self._plain: list[int] = []  # auxiliary ids of the text
        self._tokens = (0, 0)  # main ids from the first place are decoded; the text up to the second is settled
        self._settled, self._overlap = "", ""
        self._place = (0, 0)  # characters and auxiliary ids before the last settled place of the text

    @property
    def aux_ids(self) -> list[int]:
        """Ids the auxiliary model sees."""
        if not self._plain and not self._with.fallback:
            raise UserError("the context is empty for the auxiliary tokenizer: start from a prompt with some text")
        return self._with.front + self._plain if self._plain else self._with.fallback

    def update(self, ids: list[int]) -> list[int]:
        """Return the auxiliary ids after the row has become `ids` (main tokens, without padding)."""
        if self.main_ids and ids[: len(self.main_ids)] != self.main_ids:
            self._clear()
        self.main_ids = ids
        text = self._decode(ids)
        if text != self.text or not self._plain:
            self._encode(text)
        return self.aux_ids

    def _decode(self, ids: list[int]) -> str:
        first, settled = self._tokens
        window = self._with.decode(ids[first:])
        # the start of the window may lose a space: what it adds to its own settled part is the same as in the full text
        if settled and window.startswith(self._overlap):
            text = self._settled + window[len(self._overlap) :]
        else:
            text = window if not first else self._with.decode(ids)
            self._tokens, self._settled, self._overlap = (0, 0), "", ""
            settled = 0
        if len(ids) - settled >= TAIL_TOKENS and self._with.ends_character(ids, text):
            overlap = self._with.decode(ids[settled:])
            if overlap and not overlap.isspace():
                self._tokens, self._settled, self._overlap = (settled, len(ids)), text, overlap
        return text

    def _encode(self, text: str) -> None:
        characters, count = self._place
        if characters and text.startswith(self.text[:characters]):
            self._plain = self._plain[:count] + self._with.encode(text[characters:])
        else:
            characters = count = 0
            self._plain = self._with.encode(text)
        self.text, self._place = text, (characters, count)
        if self._with.splits_words:
            places = [match.start() for match in _BETWEEN_WORDS.finditer(text, characters + 1)]
            if len(places) >= TAIL_WORDS:
                place = places[-KEPT_WORDS]
                before, after = self._with.encode(text[characters:place]), self._with.encode(text[place:])
                if before + after == self._plain[count:]:  # the place is a token boundary, and stays one
                    self._place = (place, count + len(before))
