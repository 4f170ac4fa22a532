"""Shell completion: the parser's commands and options as a script for bash, zsh or fish. Nothing runs while one types."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")

Words = Mapping[str, Sequence[str]]
"""What may come next, by the path of commands so far: "" at first, then "/models", then "/models/add"."""


def script_of(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script; the shell's user evaluates it or puts it where the shell looks for it."""
    words = dict(_words(parser, ""))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser.prog, words)


def _words(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    options, commands = [], []
    for action in parser._actions:  # noqa: SLF001 - argparse tells what it parses nowhere else
        options += [each for each in action.option_strings if each.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, inner in action.choices.items():
                commands.append(name)
                yield from _words(inner, f"{path}/{name}")
        elif action.choices and not action.option_strings:
            commands += [str(each) for each in action.choices]
    yield path, sorted(commands) + sorted(options)


def _bash(program: str, words: Words) -> str:
    return f"""\
# bash completion of {program}: eval "$({program} completion bash)"
_{program}() {{
    local path="" word i words=""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case "$path/$word" in
            {_paths(words)}) path="$path/$word" ;;
        esac
    done
    case "$path" in
{_cases(words, "words='{words}'")}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{program} {program}
"""


def _zsh(program: str, words: Words) -> str:
    return f"""\
#compdef {program}
# zsh completion of {program}: eval "$({program} completion zsh)", or this text as _{program} in a folder of $fpath
_{program}() {{
    local at="" word
    for word in ${{words[2,CURRENT-1]}}; do
        case "$at/$word" in
            {_paths(words)}) at="$at/$word" ;;
        esac
    done
    case "$at" in
{_cases(words, "compadd -- {words}")}
    esac
    _files
}}
compdef _{program} {program}
"""


def _fish(program: str, words: Words) -> str:
    lines = [
        f"# fish completion of {program}: {program} completion fish | source",
        f"function __{program}_at",
        "    set -l at",
        "    for word in (commandline -opc)[2..]",
        '        switch "$at/$word"',
        f"            case {' '.join(path for path in sorted(words) if path)}",
        '                set at "$at/$word"',
        "        end",
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
    ]
    for path in sorted(words):
        condition = f"-n '__{program}_at \"{path}\"'"
        lines += [
            f"complete -c {program} {condition} -l {word[2:]}"
            if word.startswith("--")
            else f"complete -c {program} -f {condition} -a {word}"
            for word in words[path]
        ]
    return "\n".join(lines) + "\n"


def _paths(words: Words) -> str:
    return " | ".join(path for path in sorted(words) if path)


def _cases(words: Words, template: str) -> str:
    return "\n".join(f'        "{path}") {template.format(words=" ".join(words[path]))} ;;' for path in sorted(words))
