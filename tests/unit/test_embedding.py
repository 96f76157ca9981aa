import math
import threading
import time

import numpy as np
import pytest

from lm_eval_inversion.prompts import load_prompts
from lm_eval_inversion.scoring import embedding
from lm_eval_inversion.scoring.embedding import MAX_PARTS, _joined, cosine, embed, embed_many

BEGINNING = " ".join(f"Loaf {number} is baked in Ghent by Mira." for number in range(40))  # more than the model reads at once
WHALES = " Grey whales cross the cold northern sea and sing below the ice."


def test_the_end_of_a_long_text_counts():
    one, other = BEGINNING + WHALES * 30, BEGINNING + " Taxes are due in April, and the form has nine pages." * 30
    assert cosine(one, one) == pytest.approx(1)
    assert cosine(one, other) < 0.9
    assert cosine(one, WHALES) > cosine(other, WHALES) + 0.1


def test_short_and_long_texts_have_unit_length_alone_and_together():
    texts = ["You are Mira.", BEGINNING + WHALES, "", BEGINNING * (MAX_PARTS + 4)]
    together = embed_many(texts)
    assert together.shape == (4, 384)
    for text, vector in zip(texts, together):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert embed(text) == pytest.approx(vector, abs=1e-5)
    assert len(embed_many([])) == 0


def test_parts_count_by_their_length():
    joined = _joined([np.array([1.0, 0.0]), np.array([0.0, 1.0])], ["aaa", "b"])
    assert joined == pytest.approx(np.array([3, 1]) / math.sqrt(10))


def test_the_benchmarks_prompts_are_read_in_one_part():
    from lm_eval_inversion.scoring.embedding import _parts

    for prompt in (*load_prompts("v1", split=None), *load_prompts("user-v1", split=None)):
        assert _parts(prompt.text) == [prompt.text]


def test_threads_use_the_encoder_one_after_another(monkeypatch):
    """Its tokenizer keeps whether it cuts texts: set by one thread, it would cut another's."""
    users, most = set(), []

    class Encoder:
        max_seq_length = 256

        def tokenizer(self, *_, **__):
            return self.used({"offset_mapping": [(0, 1)]})

        def encode(self, *_, **__):
            return self.used(np.ones(384))

        def used(self, result):
            users.add(threading.get_ident())
            most.append(len(users))
            time.sleep(0.01)
            users.discard(threading.get_ident())
            return result

    monkeypatch.setattr(embedding, "_encoder", Encoder)
    embed.cache_clear()
    threads = [threading.Thread(target=embed, args=(f"text {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    embed.cache_clear()  # of made-up vectors
    assert len(most) == 12
    assert max(most) == 1
