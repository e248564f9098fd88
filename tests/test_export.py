"""export: a trained model leaves its work directory whole, with a card that says the truth."""

import importlib.util
import json
import shutil
import subprocess

import numpy as np
import pytest

from mucode_jax import export, report
from mucode_jax.benchmarks import mini
from mucode_jax.core import keys
from mucode_jax.core.conversation import Chat
from mucode_jax.models import hub, huggingface
from mucode_jax.report import card
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime.files import Checksums
from mucode_jax.sampling.engine import Engine, Request
from tests import invented
from tests.fakes import mounted
from tests.runtime.test_workdir import spoil_unseen


def finished_run(directory):
    """A finished run whose models are the embedded ones."""
    results = invented.make_run(directory)
    results["config"] = {
        "generator": {"path": "mini"},
        "train": {"benchmark": "mini", "split": "train"},
        "rollout": {"n": 3, "turns": 3, "temperature": 0.7},
        "iterations": 2,
        "sft": {"learning_rate": 7e-4, "schedule": "linear", "epochs": 2, "batch": 16}
        | {"rows": 8, "length": 288},
        "verifier_training": {
            **{"learning_rate": 1e-3, "schedule": "linear", "epochs": 2, "batch": 64},
            **{"loss": "bt", "rows": 0, "length": 224},
        },
    }
    report.write(directory, results)
    for stage, model in (("mucode_2/generator", hub.MINI), ("base/verifier", hub.MINI_VERIFIER)):
        shutil.copytree(model, directory / "stages" / stage / "model")
        invented.finish(directory / "stages" / stage)
    return directory


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported")
    for what in export.WHAT:
        arguments = ["--workdir", str(workdir), "--what", what, "--out", str(out / what)]
        assert export.main(arguments) == 0
    return out


def test_an_export_is_the_trained_model_and_a_card(workdir, exported):
    names = {f.name for f in (workdir / "stages/mucode_2/generator/model").iterdir()}
    assert {f.name for f in (exported / "generator").iterdir()} == names | {"README.md"}
    for name in names:
        stored = (workdir / "stages/mucode_2/generator/model" / name).read_bytes()
        assert (exported / "generator" / name).read_bytes() == stored


def test_the_card_tells_what_results_json_holds(workdir, exported):
    results = report.read(workdir)
    shown = (exported / "generator" / "README.md").read_text()
    assert shown.startswith("---\nlicense: apache-2.0\n")
    last = next(e for e in results["evaluations"] if (e["iteration"], e["search"]) == (2, "greedy"))
    low, high = (f"{100 * bound:.0f}" for bound in last["ci95"])
    assert f"{100 * last['accuracy']:.1f} ({low}–{high}) |" in shown
    assert "batch 8 rows of 288 tokens\n" in shown
    assert "learning rate 0.0007" in shown and "seed 0" in shown and "jax 0.10.2" in shown
    assert "μCode 1" not in shown  # another iteration's numbers are not this one's
    config = shown.split("```json\n")[1].split("\n```")[0]
    assert json.loads(config) == results["config"]
    shown = (exported / "verifier" / "README.md").read_text()
    assert "batch 64, loss `bt`\n" in shown
    measured = "40 | 0.770 (0.70–0.83) | 72.5 % (60–82) | 39.0 % | 0.810 |"
    assert f"| base | Bradley-Terry | 1\u202f200 | {measured}\n" in shown


def test_nothing_is_overwritten_and_errors_are_one_line(workdir, exported, tmp_path, capsys):
    there = ["--workdir", str(workdir), "--what", "generator", "--out", str(exported / "generator")]
    assert export.main(there) == 2
    assert "is there already" in capsys.readouterr().err
    new = ["--what", "generator", "--out", str(tmp_path / "out")]
    assert export.main(["--workdir", str(tmp_path), *new]) == 2
    assert "results.json is not there" in capsys.readouterr().err
    assert export.main(["--workdir", str(workdir), *new, "--method", "star"]) == 2
    assert "holds no generator of star; it holds: mucode 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_damaged_is_named_and_leaves_nothing(workdir, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    command = ["--workdir", str(run), "--what", "generator", "--out", str(out)]
    shutil.copytree(workdir, run)
    results = report.read(run)
    results["config"].pop("rollout")
    (run / "results.json").write_text(json.dumps(results))
    assert export.main(command) == 2
    assert "results.json lacks what the card tells (KeyError: 'rollout')" in capsys.readouterr().err
    shutil.copy(workdir / "results.json", run)
    weights = run / "stages/mucode_2/generator/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert export.main(command) == 2
    assert "model/model.safetensors does not match its checksum" in capsys.readouterr().err
    weights.unlink()
    assert export.main(command) == 2
    assert "model/model.safetensors is missing" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_is_remembered_of_files_is_not_trusted(workdir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    weights = run / "stages/mucode_2/generator/model/model.safetensors"
    checksums = Checksums(run)
    checksums.sha256(weights)
    checksums.save()
    spoil_unseen(weights)
    command = ["--workdir", str(run), "--what", "generator", "--out", str(tmp_path / "out")]
    assert export.main(command) == 2
    assert "model/model.safetensors does not match its checksum" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made_is_said(workdir, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert export.main(["--workdir", str(workdir), "--what", "generator", "--out", out]) == 2
    assert f"--out {out} cannot be made: Not a directory" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_no_half_model(workdir, tmp_path, capsys):
    disk = mounted(tmp_path / "disk", 1024)
    try:
        command = ["--workdir", str(workdir), "--what", "generator", "--out", str(disk / "out")]
        assert export.main(command) == 1
        said = f"{disk}/out cannot be written: [Errno 28] No space left on device"
        assert said in capsys.readouterr().err
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_each_method_has_the_verifier_of_its_own_rollouts(tmp_path):
    for stage in (
        "base/verifier",
        "base/verifier_singles",
        "mucode_1/verifier",
        "star_1/generator",
        "ssd_1/verifier_singles",
    ):
        (tmp_path / "stages" / stage).mkdir(parents=True)
        (tmp_path / "stages" / stage / "stage.json").write_text("{}")
    methods = ("star", "ssd", "mucode", "multi_star")
    found = {m: export.find(tmp_path, "verifier", m).path for m in methods}
    assert {m: str(path.relative_to(tmp_path / "stages")) for m, path in found.items()} == {
        "star": "base/verifier_singles/model",
        "ssd": "ssd_1/verifier_singles/model",
        "mucode": "mucode_1/verifier/model",
        "multi_star": "base/verifier/model",
    }
    assert export.find(tmp_path, "verifier", "ssd", 0).path.parent.parent.name == "base"


def test_the_licence_of_the_base_is_passed_on(tmp_path):
    assert card.licence("mini", tmp_path).name == "apache-2.0"
    unknown = card.licence("runs/mine", tmp_path)
    assert unknown.name == "other" and "Look it up" in unknown.demands
    named = card.licence("meta-llama/Llama-3.2-1B-Instruct", tmp_path)
    assert named.name == "llama3.2" and named.prefix == "Llama-"
    assert "Built with Llama" in named.demands and "Llama 3.2 Community License" in named.notice
    (tmp_path / "LICENSE.txt").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n…")
    by_text = card.licence("/models/x", tmp_path)
    assert by_text.name == "llama3.1" and "It is in this directory" in by_text.demands
    assert card.licence("meta-llama/Meta-Llama-3-8B-Instruct", tmp_path / "x").name == "llama3"
    assert card.licence("codellama/CodeLlama-7b-hf", tmp_path / "x").name == "other"


def test_a_verifier_may_descend_from_another_model_than_the_generator():
    config = {"generator": {"path": "mini"}, "verifier": {"path": "owner/judge"}}
    assert card.base("generator", config) == "mini"
    assert card.base("verifier", config) == "owner/judge"
    assert card.base("verifier", {**config, "verifier": {"path": ""}}) == "mini"


# The same in torch -------------------------------------------------------------------------------

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs torch (extra `parity`)"
)


@needs_torch
def test_torch_writes_the_same_greedy_text_from_the_exported_generator(exported):
    import torch
    import transformers

    home = exported / "generator"
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    prompts = [chat.first(mini.task("test", 0, i).problem.prompt) for i in range(8)]
    config = huggingface.read_config(home)
    engine = Engine(
        config,
        huggingface.load_generator(home, config),
        slots=8,
        context=128,
        eot_ids=chat.eot_ids,
        temperature=0.0,
    )
    for i, prompt in enumerate(prompts):
        engine.submit(Request(i, prompt, keys.key_data("any")[None], 40, keep=False))
    ours = {}
    while engine.pending:
        ours |= {c.request_id: c for c in engine.step()}
    model = transformers.AutoModelForCausalLM.from_pretrained(home).eval()
    for i, prompt in enumerate(prompts):
        ids = torch.tensor(prompt[None].astype(np.int64))
        with torch.no_grad():
            theirs = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40
            )
        written = theirs[0, len(prompt) :].numpy()
        assert chat.text(written) == chat.text(ours[i].ids), i


@needs_torch
def test_torch_gives_the_same_scores_from_the_exported_verifier(exported):
    import torch
    import transformers

    home = exported / "verifier"
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    tasks = [mini.task("test", 0, i) for i in range(8)]
    texts = [
        np.concatenate([chat.first(t.problem.prompt), chat.completion(code)])
        for t in tasks
        for code in (t.solution, t.wrong[0])
    ]
    config = huggingface.read_config(home)
    ours = Scorer(config, huggingface.load_verifier(home, config))(texts)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(home).eval()
    with torch.no_grad():
        theirs = [model(torch.tensor(t[None].astype(np.int64))).logits.item() for t in texts]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
