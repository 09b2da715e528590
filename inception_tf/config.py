"""Gin files and flags in, one checked experiment out. The only importer of gin.

Of gin this takes the language: `section.parameter = value`, `include 'file.gin'`, `%MACRO`,
`@section()`. It does not take gin's registry, which binds what nothing reads, lets a second
binding win, accepts '3' for 3, and is one global state per process. Whatever gin would pass over
in silence is a ConfigError here that names the file and line.

A gin file is code. To gin itself `import` lines run Python; they are refused here before anything
is imported. What is left still decides which files are read and written: read a stranger's config
before you run it.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import tokenize

from gin import config_parser

from inception_tf.bindings import Call, Lines, Macro, check_scope, read_sections
from inception_tf.errors import ConfigError, did_you_mean
from inception_tf.parameters import (
    APART,
    REFERABLE,
    SECTIONS,
    Reference,
    default_of,
    parameter_names,
    spec_class,
)
from inception_tf.resolved import Resolved, printing_order

_GIN_PARAM = "--gin_param"
_PACKAGE = pathlib.Path(__file__).resolve().parent


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate):
        return Call(scoped_configurable_name, evaluate)

    def macro(self, macro_name):
        return Macro(macro_name)


def config_folder():
    """Where the configs that come with the package lie: inside it, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def find_gin_file(name, *, beside=None, asked=None):
    """Path of a gin file: as a path first, then among the configs that come with the package.

    Args:
      name: 'configs/irv2.gin', 'irv2.gin' and 'irv2' all find the installed one.
      beside: folder of the including file; None takes the working directory.
      asked: what errors quote as the reason.

    Raises:
      ConfigError: there is none, with the places looked at and the names there.
    """
    folder = config_folder()
    named = pathlib.Path(name)
    below = pathlib.Path(*named.parts[1:]) if named.parts[:1] == ("configs",) else named
    places = [pathlib.Path(beside or "") / named.expanduser(), folder / below]
    for place in places:
        for path in (place, place.with_name(f"{place.name}.gin")) if place.name else ():
            if path.is_file():
                return path.resolve()
    known = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.gin"))]
    raise ConfigError(
        "A gin file must exist, as a path or among the configs that come with the package.",
        received=asked or repr(str(name)),
        remedy=f"Looked for {' and '.join(dict.fromkeys(str(p.absolute()) for p in places))}. "
        f"{did_you_mean(below.as_posix(), known)} "
        f"Configs there: {', '.join(known) or 'none'}.",
    )


def _shown_path(path):
    """A file for messages: from the working directory where it lies below."""
    below = os.path.relpath(path)
    return str(path) if below.startswith(os.pardir) else below


def _origin(path):
    """A file for the saved config: no folder of this machine."""
    with contextlib.suppress(ValueError):
        return (pathlib.PurePath("configs") / path.relative_to(config_folder())).as_posix()
    return path.name


def _parse(text, *, where):
    """The statements of a gin text; nothing is imported or called.

    Args:
      text: of a file, or of one --gin_param.
      where: function line number -> how messages name the place.
    """
    parser = None
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        return list(iter(parser.parse_statement, None))
    except (SyntaxError, tokenize.TokenError, TypeError) as error:
        if isinstance(error, SyntaxError):
            line, reason = error.lineno, error.msg
        elif isinstance(error, tokenize.TokenError):
            line, reason = error.args[1][0], error.args[0]
        else:  # an unhashable key of a dict
            line, reason = parser.current_token.start[0], str(error)
        if "Failed to parse token" in reason:
            reason = f"{reason.rpartition('token ')[2]} is no value"
        lines = text.splitlines()
        written = lines[line - 1].strip() if line and line <= len(lines) else text.strip()
        raise ConfigError(
            f"A line must read section.parameter = value: {reason.rstrip('.')}.",
            received=f"{written} ({where(line)})",
            remedy="Values are Python literals (True, 'text', 0.045, (1, 2)), %MACRO or "
            "@section(); there are no expressions.",
        ) from error


class _Reader:
    """Reads files and what they include into Lines."""

    def __init__(self):
        self.lines = Lines()
        self._asked = {}  # file -> what asked for it
        self._open = []  # files that include the one being read, and itself

    def read_file(self, path, *, asked):
        """Reads a gin file; `asked` is what errors quote as the reason."""
        if path in self._asked:
            raise ConfigError(
                "A gin file is read once; a second reading would undo what was bound in between.",
                received=f"{asked}, after {self._asked[path]}",
                remedy="Remove one of them.",
            )
        self._asked[path] = asked
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"A gin file must be readable as UTF-8 text: {error}.", received=asked
            ) from error
        shown, origin = _shown_path(path), _origin(path)
        self._open.append(path)
        for statement in _parse(text, where=lambda line: f"{shown}:{line}"):
            line = statement.location.line_num
            where = f"{shown}:{line}"
            if isinstance(statement, config_parser.IncludeStatement):
                include = f"include {statement.filename!r} ({where})"
                included = find_gin_file(statement.filename, beside=path.parent, asked=include)
                self.read_file(included, asked=include)
            else:
                self._take(statement, where=where, origin=f"{origin}:{line}", source=path)
        self._open.pop()

    def read_param(self, text):
        """Reads the text of one --gin_param."""
        for statement in _parse(text, where=lambda line: _GIN_PARAM):
            if isinstance(statement, config_parser.IncludeStatement):
                raise ConfigError(
                    f"{_GIN_PARAM} takes bindings.",
                    received=repr(text),
                    remedy="Give the file as --gin_file.",
                )
            self._take(statement, where=_GIN_PARAM, origin=_GIN_PARAM, source=_GIN_PARAM)

    def _take(self, statement, *, where, origin, source):
        if isinstance(statement, config_parser.ImportStatement):
            raise ConfigError(
                "A config imports nothing: an import runs Python.",
                received=f"{statement.format()} ({where})",
                remedy="Remove the line; the sections need no import.",
            )
        name = ".".join(filter(None, (statement.selector, getattr(statement, "arg_name", ""))))
        check_scope(statement.scope, name, where=where)
        if isinstance(statement, config_parser.BindingStatement):
            self.lines.add(
                name,
                statement.value,
                where=where,
                origin=origin,
                source=source,
                including=self._open[:-1],
            )


def resolve(*, gin_files, gin_params=(), overrides=None, reads, exempt_unread=False):
    """Everything that a command needs to know, from its gin files and flags.

    Later files win over earlier ones, `gin_params` over files, `overrides` over all.

    Args:
      gin_files: names as `find_gin_file` takes them.
      gin_params: texts such as "training.seed = 1".
      overrides: 'section.name' -> value of the flags that stand for a parameter; the flag is
        named as the parameter, --data_dir for data.data_dir.
      reads: the fixed sections that this command reads.
      exempt_unread: let the FILES bind sections that only other commands read, as the config
        saved by a training run does for an evaluation.

    Returns:
      A Resolved. Each call stands for itself; nothing is kept between two.

    Raises:
      ConfigError: whatever would otherwise be ignored or misread, with file and line.
    """
    if unknown := set(reads) - {*SECTIONS, *APART}:
        raise ValueError(f"No such sections: {sorted(unknown)}.")
    reader = _Reader()
    for name in gin_files:
        reader.read_file(find_gin_file(name), asked=f"--gin_file={name}")
    for text in gin_params:
        reader.read_param(text)
    for parameter, value in (overrides or {}).items():
        flag = f"--{parameter.split('.')[1]}"
        reader.lines.add(parameter, value, where=flag, origin=flag, source=flag)
    bound = reader.lines.bindings()
    values = _all_values(bound)
    read = read_sections(values, reads)
    reader.lines.check_read(
        read,
        reads=reads,
        values=values,
        exempt=lambda line: exempt_unread and isinstance(line.source, pathlib.Path),
    )
    if "training" in reads:
        _check_length(bound, values)
    return Resolved(
        sections={
            section: _build(section, values, bound)
            for section in (reads if set(reads) <= set(APART) else SECTIONS)
        },
        values={
            f"{section}.{name}": values[f"{section}.{name}"]
            for section in printing_order(read)
            for name in parameter_names(section)
        },
        bound=bound,
        name=pathlib.Path(gin_files[-1]).stem if gin_files else "defaults",
    )


def _all_values(bound):
    """'section.name' -> value, bound or default, of every parameter there is."""
    values = {}
    for section in (*SECTIONS, *REFERABLE, *APART):
        for name in parameter_names(section):
            parameter = f"{section}.{name}"
            value = bound[parameter].value if parameter in bound else default_of(parameter)
            if value is dataclasses.MISSING:
                raise ConfigError(
                    f"{parameter} has no default and must be given.",
                    remedy=f"Give {_GIN_PARAM}='{parameter} = ...'.",
                )
            values[parameter] = value
    return values


def _check_length(bound, values):
    names = ("training.num_epochs", "training.num_steps")
    if sum(values[name] is not None for name in names) != 1:
        given = [
            f"{name} = {values[name]!r} ({bound[name].where if name in bound else 'default'})"
            for name in names
        ]
        raise ConfigError(
            "A run has a length: exactly one of training.num_epochs and training.num_steps.",
            received=" and ".join(given),
            remedy="Bind one of them to a number and the other to None.",
        )


def _build(section, values, bound):
    """The dataclass of a section, references built first."""
    arguments = {}
    for name in parameter_names(section):
        value = values[f"{section}.{name}"]
        is_reference = isinstance(value, Reference)
        arguments[name] = _build(value.section, values, bound) if is_reference else value
    try:
        return spec_class(section)(**arguments)
    except ConfigError as error:
        # The dataclass knows its rule, but not who gave the value.
        mine = [f"{section}.{name}" for name in arguments if f"{section}.{name}" in bound]
        named = [p for p in mine if re.search(rf"\b{p.split('.')[1]}\b", str(error))]
        places = ", ".join(f"{p} ({bound[p].where})" for p in named or mine)
        raise ConfigError(f"{places or section}: {error}") from error
