# Targets that do not exist get one sentence instead of an exception.

from memorization.config import nearest

_known = [rule.name for rule in workflow.rules]
for _target in getattr(workflow.dag_settings, "targets", None) or []:
    if "/" not in str(_target) and "." not in str(_target) and _target not in _known:
        _names = [name for name in _known if not name[-1].isdigit() or name in CATALOG]
        sys.exit(f"error: no paper, figure or other target named {_target!r}{nearest(_target, _names)}")
