"""What pydantic found wrong with a config, as lines for the person who wrote it: YAML path, problem, remedy."""

from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gatewayd.core.errors import GatewayError

Path = tuple[int | str, ...]


class ConfigError(GatewayError):
    """The config cannot be used; `problems` holds one line for each thing to mend."""

    code = "config_error"

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join((f"{source}: {count}", *problems)))
        self.problems = problems


def problem_lines(invalid: ValidationError, root: type[BaseModel]) -> tuple[str, ...]:
    """Render every error of a failed validation against `root`, in the order of the options."""
    return tuple(_line(details, root) for details in invalid.errors(include_url=False))


_EXPECTED = {
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is neither true nor false",
    "string_type": "is not text: put it in quotes",
    "path_type": "is not a path",
    "model_type": "is not a mapping: write 'key: value' lines below it",
    "dict_type": "is not a mapping: write 'key: value' lines below it",
    "tuple_type": "is not a list: write '- …' lines below it",
}


def _line(details: ErrorDetails, root: type[BaseModel]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part:.60}" for part in details["loc"]).lstrip(".")
    return f"{path or 'the file'}: {_remedy(details, root)}"


def _remedy(details: ErrorDetails, root: type[BaseModel]) -> str:
    kind, given = details["type"], f"{details['input']!r:.60}"
    match kind:
        case "extra_forbidden":
            return _unknown_key(details["loc"], root)
        case "value_error":
            return str(details["ctx"]["error"])
        case "missing":
            return "is missing: add it"
        case "literal_error":
            return f"{given} is none of {details['ctx']['expected']}"
    return f"{given} {_EXPECTED.get(kind, '– ' + details['msg'])}"


def _unknown_key(path: Path, root: type[BaseModel]) -> str:
    known = list(_section_at(path[:-1], root).model_fields)
    near = get_close_matches(str(path[-1]), known, n=1)
    return f"unknown key, did you mean {near[0]!r}?" if near else f"unknown key, known here: {', '.join(known)}"


def _section_at(path: Path, root: type[BaseModel]) -> type[BaseModel]:
    """Return the class of the section at a path; list indexes and names of the file's own choice lead to the same one."""
    section = root
    for part in path:
        field = section.model_fields.get(str(part))
        section = (field and _section_in(field.annotation)) or section
    return section


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
