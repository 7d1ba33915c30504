"""The tokenizer of `builtin:tiny`: byte-level BPE with 1,024 entries and a ChatML template.

What decides whether so small a model learns: every digit is one token of its own (⓪ ① too), a
syllable is tokenized alike in the bank and in the answer (letter runs take no space with them),
and no token lies across the border of prompt and answer (punctuation takes no newline with it).
Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from evaluation import binary, syllo
from evaluation.lexicon import lexicon

VOCABULARY = 1024
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
"""Special tokens, in the order of their ids from 0 on."""

SPLIT = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _texts(seed: int) -> Iterator[str]:
    """What the vocabulary is learned from: rows of both skills, and every word of the lexicon.

    Level 1 weighs most: it is what the demo trains first.
    """
    for level, rows in ((1, 2000), (2, 500), (5, 100), (10, 50)):
        for row in syllo.make(level, rows, seed):
            for message in row["messages"]:
                yield f"{message['role']}\n{message['content']}"
    for level in (1, 2, 3, 4, 6):
        for row in binary.make(level, min(400, binary.possible(level, False)), seed):
            for message in row["messages"]:
                yield f"{message['role']}\n{message['content']}"
    for word in lexicon():
        yield f"{word.label} {word.label.upper()} {' '.join(word.syllables)} {word.definition}"


def train_tokenizer(seed: int) -> Tokenizer:
    """A tokenizer of exactly VOCABULARY entries; the same for the same seed."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    return tokenizer


def tokenizer_files(seed: int, max_length: int) -> dict[str, str]:
    """File names to contents: tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "additional_special_tokens": [TURN_START, TURN_END],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": train_tokenizer(seed).to_str(pretty=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "chat_template.jinja": CHAT_TEMPLATE,
    }
