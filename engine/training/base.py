"""Where the base model's folder is: found, made (`builtin:tiny`) or fetched once into models/.

Imports neither torch nor transformers: what only reads the tokenizer asks here too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from queue_store import durable
from queue_store.errors import NotFound
from queue_store.home import Home

TINY = "builtin:tiny"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def resolve_base(home: Home, base: str, seed: int) -> Path:
    """The folder of the base model that `model.base` names; made or fetched once into models/.

    Raises NotFound where it is neither a folder nor can be fetched.
    """
    found = base_here(home, base, seed)
    if found is not None:
        return found
    if base == TINY:
        from engine.training.tiny import make_tiny

        final = _tiny(home, seed)
        tmp = durable.new_tmp(home, "model")
        make_tiny(tmp, seed)
        durable.make_read_only(tmp)
        durable.publish(tmp, final)
        return final
    check_named(home, base, seed)
    return _fetch(home, base)


def check_named(home: Home, base: str, seed: int) -> None:
    """Raises NotFound where `model.base` is nothing that is here, can be made or may be fetched."""
    if base != TINY and not fetchable(base) and base_here(home, base, seed) is None:
        raise NotFound(
            f"no model folder {base}",
            where="model.base",
            mend='give a folder with a config.json, a hub id "owner/name", or "builtin:tiny"',
        )


def fetchable(base: str) -> bool:
    """Whether `model.base` names a model of a hub, and no folder."""
    folder = Path(base).is_absolute() or base.startswith(("./", "../", "~"))
    return not folder and base.count("/") == 1


def base_here(home: Home, base: str, seed: int) -> Path | None:
    """The folder of the base model, None where it is not on this machine yet; makes nothing."""
    if base == TINY:
        final = _tiny(home, seed)
        return final if final.is_dir() else None
    folder = Path(base).expanduser()
    for place in (folder if folder.is_absolute() else home.root / folder, home.models / base):
        if (place / "config.json").is_file():
            return place
    fetched = home.models / base.replace("/", "--")
    return fetched if base.count("/") == 1 and fetched.is_dir() else None


@contextmanager
def text_folder(home: Home | None, base: str, seed: int) -> Iterator[Path]:
    """A folder with the base model's config, tokenizer and chat template, for as long as the
    context lasts. Nothing is fetched, and nothing is written to the home.

    `home` None: `base` is a folder, from the working folder on, or `builtin:tiny`. Raises
    NotFound where the model is not on this machine.
    """
    if home is not None:
        found = base_here(home, base, seed)
    else:
        folder = Path(base).expanduser()
        found = folder if base != TINY and folder.is_dir() else None
    if found is not None:
        yield found
        return
    if base != TINY:
        raise NotFound(
            f"the model {base} is not on this machine",
            where="model.base" if home is not None else "--model",
            mend="give a folder with a tokenizer.json"
            + (", or start training once: it is fetched then" if home is not None else ""),
        )
    from engine.training.tiny import make_tiny_text

    with tempfile.TemporaryDirectory(prefix="trainctl-tiny-") as made:
        make_tiny_text(Path(made), seed)
        yield Path(made)


def _tiny(home: Home, seed: int) -> Path:
    return home.models / f"builtin-tiny-{seed}"


def _fetch(home: Home, base: str) -> Path:
    """A hub model, downloaded beside and put into models/ when it is complete."""
    from huggingface_hub import snapshot_download

    final = home.models / base.replace("/", "--")
    partial = durable.make_folder(home.tmp / f"fetch-{final.name}")  # kept: a download goes on
    try:
        snapshot_download(base, local_dir=partial, allow_patterns=HUB_FILES)
    except Exception as error:  # a dozen classes of three libraries, all of them: it did not come
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotFound(
            f"{base} is no folder here and did not come from the hub: {reason}",
            where="model.base",
            mend="check the name and the network, or give a folder",
        ) from None
    if not any(partial.glob("*.safetensors")):
        raise NotFound(
            f"{base} has no safetensors weights on the hub, and trainctl reads no others",
            where="model.base",
            mend="name a copy of the model that has them",
        )
    durable.make_read_only(partial)
    durable.publish(partial, final)
    return final
