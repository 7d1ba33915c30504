"""A model's text side: its tokenizer and its chat template, rendered as transformers renders it.

The jinja environment follows transformers/utils/chat_template_utils.py (5.23): sandboxed and
immutable, trim_blocks, lstrip_blocks, loop controls, `tojson`, `raise_exception`,
`strftime_now`, and the `generation` tag that marks what trains. Tests compare the two.
Neither torch nor transformers is imported: what they cost is not worth a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import orjson
from blake3 import blake3
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from queue_store.errors import DataError
from queue_store.rows import Message

SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""Names under which a template sees special tokens (transformers' SPECIAL_TOKENS_ATTRIBUTES)."""

Span = tuple[int, int]
"""Characters [start, end) of a rendered text."""

Tools = Sequence[Mapping[str, Any]]
"""The tools that a conversation declares, as JSON schemas."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class RowRefused(Exception):
    """A row that the template cannot render, or whose trained text cannot be told for certain."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: notes where the block stands in the output."""

    tags = {"generation"}

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.blocks: list[str] | None = None
        self.spans: list[Span] = []
        environment.extend(generation_tag=self)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_note", [], [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _note(self, caller: jinja2.runtime.Macro) -> str:
        text = str(caller())
        if self.blocks is not None:
            start = sum(map(len, self.blocks))
            self.spans.append((start, start + len(text)))
        return text

    @contextmanager
    def noting(self) -> Iterator[list[str]]:
        self.blocks, self.spans = [], []
        try:
            yield self.blocks
        finally:
            self.blocks = None


class _Dict:
    """`dict(…)` and `dict.fromkeys(…)` for templates, and nothing else of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """jinja's namespace without underscore names, which reach into CPython."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"underscore name on a namespace: {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _turn(message: Message) -> dict[str, Any]:
    """A turn as templates see it: some ask whether a key is there, so none is without need."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object. Where a file has them as JSON text (OpenAI's
    form), templates that write them with `tojson` would write a quoted string, and servers decode
    them first as well.
    """
    found = dict(call)
    if isinstance(found.get("function"), Mapping):
        found["function"] = _call(found["function"])
    text = found.get("arguments")
    if isinstance(text, str):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return found
        if isinstance(value, dict):
            found["arguments"] = value
    return found


class ChatTemplate:
    """A compiled chat template. `source` is jinja; `special` the named special tokens."""

    def __init__(self, source: str, special: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        # One moment for all rows: a template that prints the date renders a file alike at midnight.
        now = datetime.now()
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = now.strftime
        environment.globals["dict"] = _Dict()
        environment.globals["namespace"] = _Namespace
        self.source = source
        self.special = special
        self.has_generation_markers = _GENERATION.search(source) is not None
        self._tag: _GenerationTag = environment.generation_tag  # type: ignore[attr-defined]
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise DataError(
                f"the chat template is not valid jinja: {error}",
                where="chat template",
                mend="mend chat_template.jinja in the model's folder",
            ) from None

    def _variables(self, messages: Sequence[Message], tools: Tools, prompt: bool) -> dict[str, Any]:
        return {
            "messages": [_turn(message) for message in messages],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": prompt,
            **self.special,
        }

    def render(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        *,
        add_generation_prompt: bool = False,
        thinking: bool = True,
    ) -> str:
        """The text of a conversation. `thinking` False is what Qwen3 calls enable_thinking=False:
        the prompt then ends with an empty think block. Raises RowRefused with the template's own
        reason.
        """
        variables = self._variables(messages, tools, add_generation_prompt)
        if not thinking:
            variables["enable_thinking"] = False
        try:
            return self._template.render(variables)
        except Exception as error:  # a template is a program: it may raise anything
            raise RowRefused(f"the chat template refuses the row: {error}") from None

    def render_marked(
        self, messages: Sequence[Message], tools: Tools = ()
    ) -> tuple[str, list[Span]]:
        """The text, and the characters that the template's own generation blocks put out."""
        try:
            with self._tag.noting() as blocks:
                for block in self._template.generate(self._variables(messages, tools, False)):
                    blocks.append(block)
                return "".join(blocks), self._tag.spans
        except Exception as error:  # a template is a program: it may raise anything
            raise RowRefused(f"the chat template refuses the row: {error}") from None


@dataclass(frozen=True)
class Fingerprint:
    """What of a model's folder decides how rows become tokens: blake3 hex digests."""

    tokenizer: str
    template: str


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _json(path: Path) -> dict[str, Any]:
    raw = _read(path)
    if raw is None:
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=str(path)) from None
    return value if isinstance(value, dict) else {}


class ModelText:
    """The files of a model's folder that make tokens of rows. Reading them is cheap; the
    tokenizer itself (up to a second for a large vocabulary) is built at its first use.
    """

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the folder has no tokenizer.json, or a file is broken."""
        self.folder = folder
        raw = _read(folder / "tokenizer.json")
        if raw is None:
            raise DataError(
                "no tokenizer.json",
                where=str(folder),
                mend="save the tokenizer there with transformers' save_pretrained",
            )
        config = _json(folder / "tokenizer_config.json")
        older = _json(folder / "special_tokens_map.json")
        self.special: dict[str, str] = {}
        for name in SPECIAL_TOKENS:
            value = config.get(name, older.get(name))
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                self.special[name] = value
        self.chat_template = _template_source(folder, config)
        self._raw: bytes | None = raw
        self._tokenizer: Tokenizer | None = None
        self.fingerprint = Fingerprint(
            tokenizer=blake3(raw).hexdigest(),
            template=blake3(orjson.dumps([self.chat_template, self.special])).hexdigest(),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with no truncation and no padding of its own."""
        if self._tokenizer is None:
            try:
                tokenizer = Tokenizer.from_buffer(self._raw or b"")
            except Exception as error:  # tokenizers raises bare Exception for what it cannot read
                raise DataError(
                    f"tokenizers cannot read it: {error}",
                    where=str(self.folder / "tokenizer.json"),
                ) from None
            # A saved truncation would cut answers in silence.
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self._tokenizer, self._raw = tokenizer, None
        return self._tokenizer

    @property
    def eos_id(self) -> int | None:
        """The id of the end-of-sequence token, None where the folder names none."""
        name = self.special.get("eos_token")
        return None if name is None else self.tokenizer.token_to_id(name)


def _template_source(folder: Path, config: dict[str, Any]) -> str | None:
    raw = _read(folder / "chat_template.jinja")
    if raw is not None:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError("not UTF-8", where=str(folder / "chat_template.jinja")) from None
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source}
        source = named.get("default")
    return source if isinstance(source, str) else None
