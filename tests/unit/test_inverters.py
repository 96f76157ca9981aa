import copy
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer
from transformers import AutoConfig, AutoTokenizer

from lm_eval_inversion import load_inverter
from lm_eval_inversion.inverter import CheckpointError, candidates, check_inverter, sparse_prefix
from lm_eval_inversion.inverter.baselines import BASELINES, CONSTANT_PREDICTION, training_prompts
from lm_eval_inversion.inverter.checkpoint import verify_checkpoint
from lm_eval_inversion.inverter.decoding import decode, guided, repeating_tokens
from lm_eval_inversion.inverter.packing import GROUP, pack_adapter, pack_tensor, unpack_state, unpack_tensor
from lm_eval_inversion.inverter.prefix_model import encode_blocks
from lm_eval_inversion.inverter.recent import Recent
from lm_eval_inversion.inverter.registry import DEFAULT_SHA256, check_curve, prompt_room, shipped_checkpoint
from lm_eval_inversion.inverter.sparse_prefix import GUIDANCE, REPEAT_RUN
from lm_eval_inversion.plan import make_plan


@pytest.fixture
def copied(tiny_inverter_folder, tmp_path):
    return shutil.copytree(tiny_inverter_folder, tmp_path / "copy")


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer.json", "words.json"])
def test_one_flipped_byte_is_found(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    for load in (check_inverter, load_inverter):
        with pytest.raises(CheckpointError, match=f"{name} is damaged or was changed"):
            load(str(copied))


def test_a_changed_description_is_found_where_its_hash_is_pinned(copied, monkeypatch):
    from lm_eval_inversion.inverter import registry

    monkeypatch.setattr(registry, "shipped_checkpoint", lambda: copied)
    with pytest.raises(CheckpointError, match=r"inverter\.json is damaged"):
        check_inverter("default")


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer.json", "words.json", "inverter.json"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(ValueError, match="inverter.json" if name == "inverter.json" else f"{name} is missing"):
        load_inverter(copied)


def test_an_unknown_format_asks_for_an_update(copied):
    path = copied / "inverter.json"
    description = json.loads(path.read_text())
    description["format_version"] = 99
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="format 99/sparse-prefix is unknown.*update the package"):
        load_inverter(copied)


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_unknown_names_list_the_known_ones(load, tmp_path):
    known = "inverter='nope' is unknown.*default.*hub:org/name@REVISION.*t5:.*nearest, central, constant, words"
    with pytest.raises(ValueError, match=known):
        load("nope")
    with pytest.raises(ValueError, match="a folder without inverter.json"):
        load(str(tmp_path))
    with pytest.raises(ValueError, match="holds no config.json"):
        load(f"t5:{tmp_path}")


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_hub_names(load):
    for name, found in (
        ("hub:org/name", "there is none"),
        ("hub:org/name@main", "'main' is not one"),
        ("hub:org/name@refs/pr/1", "'refs/pr/1' is not one"),
        ("hub:org/name@0123abc", "'0123abc' is not one"),
    ):
        with pytest.raises(ValueError, match=f"needs the full commit hash of 40 hex digits .{found}.*under Files, History"):
            load(name)
    # HF_HUB_OFFLINE is set for all tests.
    with pytest.raises(ValueError, match="could not be fetched from the hub.*inverter=default, which ships"):
        load(f"hub:org/name@{'0123456789' * 4}")


def test_unknown_device_and_dtype(tiny_inverter_folder):
    with pytest.raises(ValueError, match="inverter_device='abacus' cannot be used"):
        load_inverter(tiny_inverter_folder, device="abacus")
    with pytest.raises(ValueError, match="inverter_dtype='int3' is unknown; known: auto, float32"):
        load_inverter(tiny_inverter_folder, dtype="int3")
    for name in BASELINES:  # also where it makes no difference
        for load in (check_inverter, load_inverter):
            with pytest.raises(ValueError, match="inverter_device='gpu' cannot be used .*; give auto, cpu, or cuda:N"):
                load(name, device="gpu")
    check_inverter("constant", device="cpu")


def test_whether_an_inverter_has_likelihoods_is_known_before_it_is_loaded():
    assert not any(kind.has_likelihood() for kind in BASELINES.values())
    for name in BASELINES:
        check_curve(name, False)
        with pytest.raises(ValueError, match=f"curve=true .* inverter='{name}' is a baseline without likelihoods.*; leave curve out, or"):
            check_curve(name, True)
    check_curve("default", True)
    check_curve("t5:folder", True)


def test_bfloat16_runs(tiny_inverter_folder):
    inverter = load_inverter(tiny_inverter_folder, dtype="bfloat16")
    assert inverter.model.dtype == torch.bfloat16
    assert isinstance(inverter.invert([["I bake."]], max_new_tokens=4)[0], str)
    assert inverter.nll([["I bake."]], ["Be a baker."])[0] > 0


def full_logits(inverter, outputs, found):
    """Next-token logits by one plain forward pass over a masked row: blocks, then the prompt so far."""
    blocks = inverter.tokenizer.blocks(outputs)
    flat = [token for block in blocks for token in block]
    owner = [index for index, block in enumerate(blocks) for _ in block]
    places = [place for block in blocks for place in range(len(block))]
    prompt = [inverter.layout.start_id, *found]
    ids = torch.tensor([flat + prompt])
    total, prefix = ids.shape[1], len(flat)
    allowed = torch.zeros(total, total, dtype=torch.bool)
    for row in range(total):
        for column in range(row + 1):
            allowed[row, column] = row >= prefix or owner[row] == owner[column]
    mask = torch.zeros(total, total).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
    positions = torch.tensor([places + [inverter.layout.prompt_position + step for step in range(len(prompt))]])
    with torch.inference_mode():
        return inverter.model(ids, attention_mask=mask, position_ids=positions).logits[0, -1]


@pytest.mark.parametrize("outputs", [[], ["I bake bread.", "Ask me about rye."]], ids=["none", "two"])
def test_nll_is_what_plain_transformers_computes(tiny_inverter, outputs):
    """Also where the prompt stands: without outputs any place gives the same, because positions count relative to each other."""
    _, *tokens = tiny_inverter.tokenizer.prompt("Be a baker.")
    steps = [full_logits(tiny_inverter, outputs, tokens[:place]).log_softmax(-1)[token] for place, token in enumerate(tokens)]
    assert tiny_inverter.nll([outputs], ["Be a baker."])[0] == pytest.approx(-sum(steps).item(), rel=1e-5)


def test_reconstructions_are_guided_argmaxes_of_full_forward_passes(tiny_inverter):
    outputs, found = ["I bake bread.", "Ask me about rye."], []
    for _ in range(8):
        logits, prior = full_logits(tiny_inverter, outputs, found), full_logits(tiny_inverter, [], found)
        scores = guided(logits[None], prior[None], GUIDANCE)[0]
        scores[list(repeating_tokens(found, REPEAT_RUN))] = -torch.inf
        found.append(int(scores.argmax()))
    assert tiny_inverter.layout.end_id not in found  # or the text would be shorter
    assert tiny_inverter.invert([outputs], max_new_tokens=8) == [tiny_inverter.tokenizer.decode(found)]


def test_guidance_prefers_what_the_outputs_speak_for_among_plausible_tokens():
    own = torch.tensor([[0.5, 0.45, 0.05, 1e-6]]).log()
    prior = torch.tensor([[0.9, 0.05, 0.05, 1e-9]]).log()
    assert guided(own, prior, 0.0).argmax() == 0
    scores = guided(own, prior, 1.0)[0]
    assert scores[1].item() == pytest.approx(2 * math.log(0.45) - math.log(0.05), rel=1e-4)
    assert scores.argsort(descending=True).tolist() == [1, 0, 2, 3]  # the rare token would win without the plausibility rule
    # Plausible is what has a tenth of the likeliest one's probability.
    scores = guided(torch.tensor([[1.0, 0.11, 0.09]]).log(), torch.zeros(1, 3), 1.0)
    assert scores[0, 1] > -1000 > scores[0, 2]


def test_no_text_ends_before_its_minimum(tiny_inverter):
    prefix = encode_blocks(tiny_inverter.model, [tiny_inverter.tokenizer.blocks(["I bake bread."])])

    def text(end_id, **settings):
        layout = tiny_inverter.layout
        return decode(
            tiny_inverter.model, prefix, start_id=layout.start_id, end_id=end_id, position=layout.prompt_position,
            max_new_tokens=8, repeat_run=100, **settings,
        )[0]  # fmt: skip

    first = text(-1)[0]
    assert text(first) == []
    assert len(text(first, min_new_tokens=3)) >= 3
    assert first not in text(first, min_new_tokens=3)


@pytest.mark.parametrize(
    ("tokens", "run", "expected"),
    [
        ([], 3, set()),
        ([7, 8], 3, set()),
        ([7, 8, 9, 7, 8], 3, {9}),
        ([7, 8, 9, 7, 8, 5, 7, 8], 3, {9, 5}),
        ([4, 4], 2, {4}),
        ([4, 4, 4], 4, set()),
        ([4, 4, 4, 4], 4, {4}),
    ],
)
def test_repeating_tokens(tokens, run, expected):
    assert repeating_tokens(tokens, run) == expected


def test_no_reconstruction_circles(tiny_inverter):
    """The untrained model soon writes a token again when nothing stops it, and never under the rule."""
    layout, run = tiny_inverter.layout, 1

    def repeats(repeat_run: int) -> int:
        prefix = encode_blocks(tiny_inverter.model, [tiny_inverter.tokenizer.blocks(["I bake bread."])])
        (ids,) = decode(
            tiny_inverter.model,
            prefix,
            start_id=layout.start_id,
            end_id=-1,
            position=layout.prompt_position,
            max_new_tokens=80,
            repeat_run=repeat_run,
        )
        found = [tuple(ids[start : start + run]) for start in range(len(ids) - run + 1)]
        return len(found) - len(set(found))

    assert repeats(repeat_run=1000) > 0
    assert repeats(repeat_run=run) == 0


def test_a_copy_reads_with_its_own_model(tiny_inverter_folder):
    inverter = load_inverter(tiny_inverter_folder)
    before = inverter.nll([OUTPUTS], [REQUEST])
    other = copy.deepcopy(inverter)
    with torch.no_grad():
        other.model.get_decoder().layers[0].self_attn.v_proj.weight.mul_(-3)
    assert other.nll([OUTPUTS], [REQUEST]) != pytest.approx(before, rel=1e-3)
    assert inverter.nll([OUTPUTS], [REQUEST]) == before


def test_the_last_few_results_are_kept_and_no_copy_has_them():
    asked = []
    kept = Recent(2)

    def compute(key):
        asked.append(key)
        return key * 10

    assert [kept.get(key, compute) for key in (1, 2, 1, 3, 1, 2)] == [10, 20, 10, 30, 10, 20]
    assert asked == [1, 2, 3, 2]
    copy.deepcopy(kept).get(1, compute)
    assert asked[4:] == [1]


def with_layout(folder, **changes):
    """The checkpoint with other numbers in its block format; None removes one."""
    path = folder / "inverter.json"
    description = json.loads(path.read_text())
    layout = {**description["block_format"], **changes}
    description["block_format"] = {name: value for name, value in layout.items() if value is not None}
    path.write_text(json.dumps(description))
    return load_inverter(folder)


OUTPUTS, REQUEST = ["I bake bread.", "Rye, mostly."], "What do you bake?"


def test_a_checkpoint_from_before_users_messages_reads_them_as_it_always_did(copied, tiny_inverter):
    inverter = with_layout(copied, user_start_id=None)
    assert "user_start_id" not in json.loads((copied / "inverter.json").read_text())["block_format"]
    assert inverter.layout.user_start_id is None
    assert inverter.of("user").nll([OUTPUTS], [REQUEST]) == tiny_inverter.nll([OUTPUTS], [REQUEST])
    assert inverter.of("user").invert([OUTPUTS], max_new_tokens=6) == tiny_inverter.invert([OUTPUTS], max_new_tokens=6)


def test_users_messages_open_with_their_own_token(copied, tiny_inverter):
    marker = 70
    inverter = with_layout(copied, user_start_id=marker)
    users = inverter.of("user")
    # Where nothing else has changed, system prompts are what they were.
    assert inverter.nll([OUTPUTS], [REQUEST]) == tiny_inverter.nll([OUTPUTS], [REQUEST])
    ids = torch.tensor([[marker, *tiny_inverter.tokenizer.prompt(REQUEST)[1:]]])
    positions = inverter.layout.prompt_position + torch.arange(ids.shape[1])[None]
    with torch.inference_mode():
        logits = inverter.model(ids, position_ids=positions).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    assert users.nll([[]], [REQUEST])[0] == pytest.approx(expected, rel=1e-5)
    assert users.nll([[]], [REQUEST])[0] != pytest.approx(inverter.nll([[]], [REQUEST])[0], rel=1e-3)
    assert users.invert([OUTPUTS], max_new_tokens=12) != inverter.invert([OUTPUTS], max_new_tokens=12)
    # Outputs open as ever, and nobody can write the marker.
    assert {block[0] for block in users.tokenizer.blocks(OUTPUTS)} == {inverter.layout.start_id}
    text = inverter.tokenizer.tokenizer.decode([marker])
    assert marker not in users.tokenizer.prompt(text, secret="user")[1:] + users.tokenizer.blocks([text])[0]


def test_both_kinds_are_one_inverter(copied):
    inverter = with_layout(copied, user_start_id=70)
    users = inverter.of("user")
    assert (users.model is inverter.model, users.name, users.hash) == (True, inverter.name, inverter.hash)
    assert inverter.of("system") is inverter
    assert users.of("user") is users
    assert users.of("system").nll([OUTPUTS], [REQUEST]) == inverter.nll([OUTPUTS], [REQUEST])
    constant = load_inverter("constant")
    assert constant.of("user") is constant


def test_the_task_about_users_messages_asks_for_them(copied):
    from lm_eval_inversion.protocol import make_protocol

    with_layout(copied, user_start_id=70)
    for task, secret in (("prompt_inversion_user", "user"), ("prompt_inversion_ordinary", "system")):
        protocol = make_protocol(task, inverter=str(copied), inverter_device="cpu")
        assert protocol.inverter.secret == secret
        assert protocol.inverter is protocol.inverter  # what it has read is kept between two batches


def test_likelihoods_are_the_sums_of_those_of_tokens(tiny_inverter):
    outputs, prompts = [["I bake bread."], [], ["I bake bread."]], ["You are a baker.", "You are a baker.", "Bake."]
    tokens = tiny_inverter.token_nll(outputs, prompts)
    assert [len(nats) for nats in tokens] == [len(tiny_inverter.tokenizer.prompt(prompt)) - 1 for prompt in prompts]
    assert tiny_inverter.nll(outputs, prompts) == pytest.approx([sum(nats) for nats in tokens])
    assert tokens[0] != tokens[1]
    assert all(nats > 0 for row in tokens for nats in row)


def test_nll_needs_pairs(tiny_inverter):
    with pytest.raises(ValueError, match="2 sets of outputs and 1 prompts"):
        tiny_inverter.nll([[], []], ["x"])


def test_packing_rounds_to_at_most_half_a_step():
    torch.manual_seed(0)
    weight = torch.randn(6, 4 * GROUP)
    parts = pack_tensor(weight)
    assert parts["codes"].shape == (6, 2 * GROUP)
    restored = unpack_tensor(**parts)
    step = (parts["scale"].float() * parts["units"].float()[:, :1]).repeat_interleave(GROUP, 1)
    assert ((restored - weight).abs() <= 0.51 * step + 0.02).all()
    assert (restored - weight).square().mean() < 0.01 * weight.square().mean()
    assert torch.equal(unpack_tensor(**pack_tensor(torch.zeros(2, GROUP))), torch.zeros(2, GROUP))
    with pytest.raises(ValueError, match="groups of 32"):
        pack_tensor(torch.zeros(2, GROUP + 1))


def test_packing_does_not_bring_a_coarser_grid_back():
    """A fine-tuned copy of a model that was 4-bit itself: the small changes must survive, on average, not vanish."""
    torch.manual_seed(0)
    grid = torch.randint(0, 16, (64, 4 * GROUP)).float()
    grid[:, ::GROUP], grid[:, 1::GROUP] = 0.0, 15.0  # every group spans its grid
    change = torch.full_like(grid, 0.1)  # a tenth of a step
    restored = unpack_tensor(**pack_tensor(grid + change))
    assert (restored - grid).mean() == pytest.approx(0.1, abs=0.04)


def test_compensated_rounding_changes_products_less_than_nearest_rounding():
    torch.manual_seed(0)
    columns = 4 * GROUP
    weight = torch.randn(64, columns)
    inputs = torch.randn(500, 20) @ torch.randn(20, columns)  # correlated, and fewer directions than columns
    inputs[:, 5] = 0  # an input that is never seen must not break it
    second_moment = inputs.T @ inputs / len(inputs)
    products = inputs @ weight.T

    def error(parts):
        return ((inputs @ unpack_tensor(**parts).T) - products).square().mean().item()

    nearest, compensated = pack_tensor(weight), pack_tensor(weight, second_moment)
    assert error(compensated) < 0.2 * error(nearest)
    assert all(torch.equal(nearest[part], compensated[part]) for part in ("scale", "minimum", "units"))
    # Uncorrelated inputs leave nothing to compensate.
    assert torch.equal(pack_tensor(weight, torch.eye(columns))["codes"], nearest["codes"])


def test_adapters_are_added_when_unpacking():
    torch.manual_seed(0)
    weight, down, up = torch.randn(8, GROUP), torch.randn(2, GROUP) * torch.tensor([[1.0], [1e-3]]), torch.randn(8, 2)
    packed = {f"w|{part}": value for part, value in pack_tensor(weight).items()}
    plain = unpack_state(dict(packed))["w"]
    merged = unpack_state({**packed, **pack_adapter("w", down, up)})["w"]
    assert (merged - plain - up @ down).abs().max() < 0.02 * (up @ down).abs().max()


def test_baselines():
    assert load_inverter("constant").invert([["x"], []]) == [CONSTANT_PREDICTION] * 2
    central = load_inverter("central")
    outputs = ["I bake bread.", "I bake rye bread.", "The moon is far away."]
    assert central.invert([outputs, []])[0] in outputs[:2]
    assert central.invert([outputs]) == central.invert([outputs[::-1]])
    assert central.invert([[]]) == [""]
    for name in ("constant", "central"):
        inverter = load_inverter(name)
        assert not inverter.has_likelihood()
        with pytest.raises(NotImplementedError, match="bits and identification need a trained inverter"):
            inverter.nll([[]], ["x"])


def test_nearest_returns_a_training_prompt_about_the_same_thing(monkeypatch, caplog):
    some = training_prompts()[::50]  # to embed them all takes a minute
    monkeypatch.setattr("lm_eval_inversion.inverter.baselines.training_prompts", lambda: some)
    nearest = load_inverter("nearest")
    # A long wait that nobody would understand.
    assert f"inverter=nearest first embeds {len(some)} training prompts, once in each process: a minute or two" in caplog.text
    target = next(prompt for prompt in some if 8 <= len(prompt.split()) <= 15)
    assert nearest.invert([[target]]) == [target]
    assert len(nearest.invert([[], ["Hello"]])) == 2


def test_the_shipped_checkpoint_loads_and_is_small():
    inverter = load_inverter("default")
    folder = shipped_checkpoint()
    assert inverter.hash == DEFAULT_SHA256[: len(inverter.hash)]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 80_000_000
    assert inverter.nll([[]], ["Act as a lighthouse keeper."])[0] < inverter.nll([[]], ["zq zq zq zq zq zq zq zq"])[0]


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory):
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        eos_token_id=2, pad_token_id=0, initializer_factor=2.0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)
    return folder


def test_sparse_t5_equals_encoding_by_hand(tiny_t5):
    from transformers.modeling_outputs import BaseModelOutput

    inverter = load_inverter(f"t5:{tiny_t5}")
    outputs, prompt = ["I bake bread.", "Rye!"], "Be a baker."
    with torch.inference_mode():
        states = [
            inverter.model.get_encoder()(**inverter.tokenizer(text, return_tensors="pt")).last_hidden_state for text in sorted(outputs)
        ]
        hidden = torch.cat(states, 1)
        labels = inverter.tokenizer(prompt, return_tensors="pt")["input_ids"]
        plain = inverter.model(encoder_outputs=BaseModelOutput(last_hidden_state=hidden), labels=labels)
    assert inverter.nll([outputs], [prompt])[0] == pytest.approx(plain.loss.item() * labels.shape[1], rel=1e-5)


def test_a_plan_counts_what_a_t5_reads(tiny_t5, tmp_path):
    folder = shutil.copytree(tiny_t5, tmp_path / "t5")
    config = json.loads((folder / "config.json").read_text())
    # 16 outputs under each of 50 prompts and the null.
    for known, tokens in (({}, 64), ({"max_output_tokens": 20}, 20), ({"max_output_tokens": 20, "padded_output_tokens": 12}, 12)):
        (folder / "config.json").write_text(json.dumps({**config, **known}))
        parameters = {"inverter": f"t5:{folder}", "split": "dev"}
        planned = make_plan(["prompt_inversion_ordinary"], parameters=parameters).tasks["prompt_inversion_ordinary"]
        assert planned.inverter_tokens == 55 * 16 * tokens


def test_a_t5_that_was_trained_with_padding_reads_it(tiny_t5, tmp_path):
    from transformers.modeling_outputs import BaseModelOutput

    folder = shutil.copytree(tiny_t5, tmp_path / "t5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "padded_output_tokens": 12}))
    inverter, masked = load_inverter(f"t5:{folder}"), load_inverter(f"t5:{tiny_t5}")
    outputs, prompt = ["I bake bread.", "Rye!"], "Be a baker."
    with torch.inference_mode():
        padded = inverter.tokenizer(sorted(outputs), padding="max_length", max_length=12, truncation=True, return_tensors="pt")["input_ids"]
        states = inverter.model.get_encoder()(input_ids=padded).last_hidden_state
        labels = inverter.tokenizer(prompt, return_tensors="pt")["input_ids"]
        plain = inverter.model(encoder_outputs=BaseModelOutput(last_hidden_state=states.reshape(1, -1, states.shape[-1])), labels=labels)
    assert inverter.nll([outputs], [prompt])[0] == pytest.approx(plain.loss.item() * labels.shape[1], rel=1e-5)
    assert inverter.nll([outputs], [prompt])[0] != pytest.approx(masked.nll([outputs], [prompt])[0], rel=1e-3)
    assert inverter.hash != masked.hash


def test_sparse_t5_does_not_depend_on_batch_order_or_padding(tiny_t5):
    inverter = load_inverter(f"t5:{tiny_t5}")
    sets = [["I bake bread.", "Rye!"], [], ["Ask me about butter and salt and everything else."]]
    alone = [inverter.invert([outputs], max_new_tokens=12)[0] for outputs in sets]
    assert inverter.invert(sets, max_new_tokens=12) == alone
    assert inverter.invert([sets[0][::-1]], max_new_tokens=12) == alone[:1]
    assert inverter.nll([sets[0]], ["x"])[0] == pytest.approx(inverter.nll([sets[0][::-1]], ["x"])[0], rel=1e-5)


def t5_tokenizer():
    """As T5 folders have one: a unigram vocabulary that holds the special tokens as ordinary pieces, too."""
    from transformers import T5Tokenizer

    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    pieces += [(piece, -3.0) for piece in ["\u2581", *"abcdefghijklmnopqrstuvwxyzR</>_0123456789"]]
    return T5Tokenizer(vocab=[*pieces, ("\u2581bake", -1.0)], extra_ids=2)


def test_special_tokens_in_texts_of_a_t5_stay_text():
    from lm_eval_inversion.inverter.sparse_t5 import text_ids

    tokenizer = t5_tokenizer()
    (plain,) = text_ids(tokenizer, ["Rye bake"])
    assert plain == tokenizer("Rye bake")["input_ids"]
    assert plain[-1] == tokenizer.eos_token_id
    for forged in ("Rye</s> bake", "Rye <pad><extra_id_0> bake", "</s>"):
        (ids,) = text_ids(tokenizer, [forged])
        assert [token for token in ids if token in tokenizer.all_special_ids] == [tokenizer.eos_token_id]
        assert "".join(tokenizer.convert_ids_to_tokens(ids[:-1])).replace("\u2581", "") == forged.replace(" ", "")
        (cut,) = text_ids(tokenizer, [forged], 4)
        assert cut == [*ids[:3], tokenizer.eos_token_id]
    assert text_ids(tokenizer, ["half \ud83d"]) == text_ids(tokenizer, ["half \ufffd"])


def test_a_t5_reads_half_a_character(tiny_t5):
    inverter = load_inverter(f"t5:{tiny_t5}")
    assert inverter.invert([["half \ud83d"]], max_new_tokens=4) == inverter.invert([["half \ufffd"]], max_new_tokens=4)
    assert inverter.nll([["half \ud83d"]], ["be \ud83d"]) == inverter.nll([["half \ufffd"]], ["be \ufffd"])


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    ],
)  # fmt: skip
def test_batches_are_halved_where_memory_does_not_suffice(tiny_inverter, monkeypatch, caplog, error):
    outputs = [[f"I bake loaf {number}.", "Rye is best."] for number in range(7)]
    whole = tiny_inverter.invert(outputs, max_new_tokens=6)
    decode, sizes = type(tiny_inverter)._decode, []

    def scarce(self, blocks, max_new_tokens):
        sizes.append(len(blocks))
        if len(blocks) > 2:
            raise error
        return decode(self, blocks, max_new_tokens)

    monkeypatch.setattr(type(tiny_inverter), "_decode", scarce)
    assert tiny_inverter.invert(outputs, max_new_tokens=6) == whole
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert "going on with 3" in caplog.text
    monkeypatch.setattr(type(tiny_inverter), "_decode", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match="memory"):
        tiny_inverter.invert(outputs[:1], max_new_tokens=6)
    monkeypatch.setattr(type(tiny_inverter), "_decode", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        tiny_inverter.invert(outputs, max_new_tokens=6)


def test_candidates_are_halved_where_memory_does_not_suffice(tiny_inverter, monkeypatch, caplog):
    candidates = [f"You are baker number {number}." for number in range(7)]
    outputs = [["I bake bread."]] * 7
    whole, loss, sizes = tiny_inverter.nll(outputs, candidates), sparse_prefix.candidate_token_losses, []

    def scarce(model, prefix, prompts, position):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss(model, prefix, prompts, position)

    monkeypatch.setattr(sparse_prefix, "candidate_token_losses", scarce)
    assert tiny_inverter.nll(outputs, candidates) == pytest.approx(whole, rel=1e-6)
    assert max(sizes) == 7
    assert "going on with 3" in caplog.text
    monkeypatch.setattr(sparse_prefix, "candidate_token_losses", lambda *_: (_ for _ in ()).throw(RuntimeError("can't allocate memory")))
    with pytest.raises(RuntimeError, match="memory"):
        tiny_inverter.nll(outputs[:1], candidates[:1])


def test_likelihoods_do_not_depend_on_the_slices_they_are_computed_in(tiny_inverter, monkeypatch):
    outputs, prompts = [["I bake bread."]] * 3, ["You are a baker.", "You are a sailor who bakes.", "Bake."]
    whole = tiny_inverter.nll(outputs, prompts)
    monkeypatch.setattr(candidates, "SCORED_TOKENS", 3)
    assert tiny_inverter.nll(outputs, prompts) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_a_folder_without_weights_is_found_before_a_run(load, tmp_path, chat_model):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((chat_model / name).read_bytes())
    for kind in ("t5", "asked"):
        with pytest.raises(ValueError, match=f"inverter='{kind}:.*lacks weights in safetensors; get the folder again"):
            load(f"{kind}:{tmp_path}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}')
    (tmp_path / "part-1.safetensors").touch()
    with pytest.raises(ValueError, match="lacks part-2.safetensors"):
        load(f"asked:{tmp_path}")
    for index in ("{}", '{"weight_map": []}', '{"weight_map": {}}', "[]", "{"):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ValueError, match=r"inverter='asked:.*model\.safetensors\.index\.json (is no index of weights|names no files)"):
            load(f"asked:{tmp_path}")


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_weights_that_were_not_fetched_are_named(load, tmp_path, chat_model, tiny_t5):
    for kind, whole in (("t5", tiny_t5), ("asked", chat_model)):
        folder = shutil.copytree(whole, tmp_path / kind)
        (folder / "consolidated.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        load(f"{kind}:{folder}")  # of what transformers does not read nothing is asked
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(ValueError, match=rf"inverter='{kind}:.*is a pointer of git-lfs.*run git lfs pull in {folder}"):
            load(f"{kind}:{folder}")


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_a_home_that_is_nobodys_is_named(load):
    for kind in ("", "t5:", "asked:"):
        with pytest.raises(ValueError, match=f"inverter='{kind}~nouser/x': nobody here is called '~nouser'"):
            load(f"{kind}~nouser/x")


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_a_tokenizer_of_another_model_is_found_before_a_run(load, tmp_path, chat_model, tiny_t5):
    for kind, whole in (("t5", tiny_t5), ("asked", chat_model)):
        folder = shutil.copytree(whole, tmp_path / kind)
        load(f"{kind}:{folder}")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = AutoConfig.from_pretrained(folder).vocab_size
        # Special tokens beyond the vocabulary are no harm: texts never become any.
        tokenizer.add_special_tokens({"additional_special_tokens": [f"<image{number}>" for number in range(rows - len(tokenizer) + 1)]})
        tokenizer.save_pretrained(folder)
        load(f"{kind}:{folder}")
        tokenizer.add_tokens(["lighthouse"])
        tokenizer.save_pretrained(folder)
        with pytest.raises(ValueError, match=rf"inverter='{kind}:.*has a token {rows + 1}, but the model's vocab_size is {rows}"):
            load(f"{kind}:{folder}")


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_a_t5_reads_a_whole_number_of_tokens(load, tmp_path, tiny_t5):
    folder = shutil.copytree(tiny_t5, tmp_path / "t5")
    config = json.loads((folder / "config.json").read_text())
    for key, most in [*(("max_output_tokens", most) for most in ("64", 0, 6.5, True, None)), ("padded_output_tokens", "64")]:
        (folder / "config.json").write_text(json.dumps({**config, key: most}))
        with pytest.raises(ValueError, match=f"{key} of its config.json is .*give a whole number from 1 on"):
            load(f"t5:{folder}")


def test_prompts_that_are_too_long_are_found_before_a_run(tmp_path, tiny_inverter_folder, chat_model, caplog):
    from lm_eval_inversion.protocol import make_protocol

    secret = "Zanzibar "
    description = json.loads((tiny_inverter_folder / "inverter.json").read_text())
    room = description["model_config"]["max_position_embeddings"] - 16 - 1 - 2
    tokenizer = load_inverter(tiny_inverter_folder).tokenizer
    word = len(tokenizer.prompt(secret * 2)) - len(tokenizer.prompt(secret))
    path = tmp_path / "prompts.jsonl"

    def check(words, inverter=tiny_inverter_folder):
        path.write_text("".join(json.dumps({"id": f"p{number}", "text": secret * number}) + "\n" for number in words))
        make_protocol("prompt_inversion", prompts=str(path), inverter=str(inverter)).check_inverter()

    check([2, 288 // word - 1])
    assert not caplog.text
    check([2, 288 // word + 1, room // word - 1])
    assert "trained on prompts of at most 288 tokens; 2 of 3 prompts are longer" in caplog.text
    assert f"('p{288 // word + 1}', 'p{room // word - 1}'), the longest has" in caplog.text
    with pytest.raises(ValueError, match=f"has positions for prompts of {room} tokens, and the prompt 'p{room // word + 1}' has") as found:
        check([2, room // word + 1])
    assert secret.strip() not in caplog.text + str(found.value)
    check([room // word + 1], "nearest")
    with pytest.raises(ValueError, match="inverter='asked:.*has positions for prompts of .* tokens, and the prompt 'p4000' has"):
        check([2, 4000], f"asked:{chat_model}")


def test_what_is_said_of_long_prompts_is_so_of_the_shipped_checkpoint():
    text = (Path(__file__).parents[2] / "docs" / "limitations.md").read_text()
    checkpoint = verify_checkpoint(shipped_checkpoint())
    assert f"at most {checkpoint.description['block_format']['max_prompt_tokens']} of its tokens" in text
    assert f"more than {prompt_room(checkpoint):,} tokens" in text


def test_no_code_of_a_folder_runs_though_somebody_says_yes(tmp_path, chat_model, monkeypatch):
    from lm_eval_inversion.target import Target
    from lm_eval_inversion.training.collect import collect

    folder = shutil.copytree(chat_model, tmp_path / "stranger")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (folder / "config.json").write_text('{"model_type": "stranger", "auto_map": {"AutoConfig": "code.Config"}}')
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    for load in (
        lambda: check_inverter(f"t5:{folder}"),
        lambda: check_inverter(f"asked:{folder}"),
        lambda: Target.load(str(folder), device="cpu"),
        lambda: collect(str(folder), ["a place"], tmp_path / "pairs.jsonl", device="cpu"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
        with pytest.raises(ValueError, match="custom code"):
            load()
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_a_part_of_a_model_is_not_filled_up_with_random_weights(load, tmp_path, chat_model, tiny_t5):
    from safetensors.torch import load_file, save_file

    for kind, whole, gone in (("t5", tiny_t5, "decoder."), ("asked", chat_model, "model.norm")):
        load(f"{kind}:{whole}")  # tied weights are in no file, and not missed
        folder = shutil.copytree(whole, tmp_path / kind)
        weights = load_file(folder / "model.safetensors")
        kept = {key: value for key, value in weights.items() if not key.startswith(gone)}
        assert 0 < len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=rf"inverter='{kind}:.*lacks {len(weights) - len(kept)} weights of a .*{gone}"):
            load(f"{kind}:{folder}")


def test_another_models_folder_is_no_t5(chat_model):
    with pytest.raises(ValueError, match="holds a llama; give the folder of a T5"):
        check_inverter(f"t5:{chat_model}")


def test_likelihoods_of_outputs_that_were_inverted_read_nothing_again(tiny_inverter_folder, monkeypatch):
    outputs, others = ["I bake bread.", "Rye, mostly.", "I bake bread."], ["The sea is calm.", "Two ships tonight."]
    prompts = ["You are a baker.", "You keep a lighthouse."]
    fresh = load_inverter(tiny_inverter_folder)
    whole, part = fresh.nll([outputs] * 2, prompts), fresh.nll([outputs[:1]] * 2, prompts)

    inverter = load_inverter(tiny_inverter_folder)
    inverter.invert([others, outputs], 4)

    def refuse(*_):
        raise AssertionError("the outputs were run again")

    monkeypatch.setattr(sparse_prefix, "encode_blocks", refuse)
    assert inverter.nll([outputs] * 2, prompts) == whole
    assert inverter.nll([outputs[:1]] * 2, prompts) == pytest.approx(part, abs=1e-4)
    with pytest.raises(AssertionError, match="run again"):
        inverter.nll([["Something else."]], prompts[:1])
    with pytest.raises(AssertionError, match="run again"):  # of one prompt each, not of one prompt
        inverter.nll([[outputs[0], others[0]]], prompts[:1])
