"""The loop: its schedule, what decays, and that a run cut anywhere goes on unharmed."""

import json
import os
import resource

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from storygen.errors import TrainError
from storygen.model import GPT
from storygen.train.metrics import METRICS
from storygen.train.optimizer import (
    configure_optimizers,
    last_level_step,
    optimizer_tensors,
    schedule,
)
from storygen.train.trainer import Trainer


def updated(config, **changes):
    return config.model_copy(update=changes)


def metrics(run):
    lines = (run / METRICS).read_text().splitlines()
    timing = ("tokens_per_second",)
    return [{k: v for k, v in json.loads(x).items() if k not in timing} for x in lines]


def test_rate_rises_stays_and_falls_in_lines(config):
    config = updated(config, final_share=0.2, decay_share=0.5, warmup_steps=4, max_steps=10)
    rates = [schedule(step, config) for step in (1, 2, 4, 6, 7, 10)]
    assert rates == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.84, 0.36])


def test_a_whole_decay_is_the_linear_schedule_of_transformers(config):
    config = updated(config, decay_share=1.0, warmup_steps=0, max_steps=7)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimizer, 0, 7)
    for step in range(1, 8):
        assert schedule(step, config) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_only_matrices_decay(config):
    model = GPT(config.model_config_for(10))
    (adamw,) = configure_optimizers(model, config)
    decayed, others = adamw.param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    assert sum(len(g["params"]) for g in (decayed, others)) == len(list(model.parameters()))


def test_muon_steps_the_matrices_inside_the_blocks_only(config):
    model = GPT(config.model_config_for(10))
    adamw, muon = configure_optimizers(model, updated(config, muon_learning_rate=0.02))
    names = {id(p): name for name, p in model.named_parameters()}
    inner = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    others = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert inner == {n for n in names.values() if n.startswith("h.") and n.endswith("weight")} - {
        "h.0.ln_1.weight",
        "h.0.ln_2.weight",
    }
    assert sorted([*inner, *others]) == sorted(names.values())


def test_it_learns_a_repeated_sentence(config, corpus, tmp_path):
    trainer = Trainer(updated(config, max_steps=90, dropout=0.0), corpus, tmp_path)
    assert trainer.run()
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 91))
    assert lines[-1]["val_loss"] < 1.0 < 2.0 < lines[0]["loss"]


def test_accumulated_batches_give_the_gradient_of_one_large_batch(config, corpus, tmp_path):
    plain = updated(config, dropout=0.0, max_steps=3, dtype="fp32")
    parts = Trainer(updated(plain, batch_size=4, accumulate=2), corpus, tmp_path / "a")
    whole = Trainer(updated(plain, batch_size=8, accumulate=1), corpus, tmp_path / "b")
    parts.run()
    whole.run()
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], weight, msg=name)


def test_a_run_may_be_made_shorter_or_longer_until_its_rate_comes_down(config, corpus, tmp_path):
    short = updated(config, max_steps=8, decay_share=0.5, eval_every=100)
    long = updated(short, max_steps=20)
    level = [s for s in range(1, 9) if schedule(s, short) == schedule(s, long)]
    assert last_level_step(short) == level[-1] == 5
    Trainer(updated(short, max_steps=5, decay_share=0.0), corpus, tmp_path / "cut").run()
    changed = Trainer(short, corpus, tmp_path / "cut")
    assert changed.resume()
    assert changed.run()
    unbroken = Trainer(short, corpus, tmp_path / "whole")
    assert unbroken.run()
    assert all(
        torch.equal(a, b)
        for a, b in zip(changed.model.parameters(), unbroken.model.parameters(), strict=True)
    )
    with pytest.raises(TrainError, match="begun with max_steps = 8"):
        Trainer(long, corpus, tmp_path / "whole").resume()


@pytest.mark.parametrize("muon", [None, 0.02])
@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(config, corpus, tmp_path, cut, muon):
    config = updated(config, muon_learning_rate=muon)
    unbroken = Trainer(config, corpus, tmp_path / "a")
    unbroken.run()

    first = Trainer(config, corpus, tmp_path / "b")
    first.on_step = lambda p: first.save() if p.step == cut else None
    first.run()  # goes past the cut, as a run that is killed later than its last checkpoint
    for path in (tmp_path / "b").glob("step-*"):
        if int(path.name[5:]) > cut:
            os.rename(path, tmp_path / path.name)
    torch.manual_seed(999)  # another process, another state
    second = Trainer(config, corpus, tmp_path / "b")
    assert second.resume()
    assert second.step == cut
    assert second.run()

    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    states = [optimizer_tensors(run.model, run.optimizers) for run in (unbroken, second)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_run_cut_between_two_parts_of_a_step_goes_on_unharmed(config, corpus, tmp_path):
    unbroken = Trainer(config, corpus, tmp_path / "a")
    unbroken.run()
    first = Trainer(updated(config, checkpoint_minutes=1e-9), corpus, tmp_path / "b")
    read = first.windows.batch

    def batch(number, size, rows):
        if number == 2 * 6 + 1:  # the second part of the seventh step
            raise KeyboardInterrupt
        return read(number, size, rows)

    first.windows.batch = batch
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Trainer(config, corpus, tmp_path / "b")
    assert second.resume()
    assert second.run()
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(config, corpus, tmp_path):
    trainer = Trainer(config, corpus, tmp_path)
    trainer.run(minutes=0)
    trainer.step = 7
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TrainError, match=r"step-0000007 could not be written .* --resume"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000"]
    assert Trainer(config, corpus, tmp_path).resume()


def test_a_damaged_checkpoint_is_passed_over_and_named(config, corpus, tmp_path):
    trainer = Trainer(updated(config, checkpoint_minutes=1e-9), corpus, tmp_path)
    trainer.run()
    newest = tmp_path / "step-0000012"
    data = bytearray((newest / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "state.safetensors").write_bytes(data)
    again = Trainer(updated(config, checkpoint_minutes=1e-9), corpus, tmp_path)
    assert again.resume()
    assert (again.step, again.damaged) == (11, ["step-0000012"])


def test_damaged_checkpoints_are_not_begun_over(config, corpus, tmp_path):
    trainer = Trainer(updated(config, checkpoint_minutes=1e-9), corpus, tmp_path)
    trainer.run()
    for checkpoint in tmp_path.glob("step-*"):
        (checkpoint / "state.json").write_text("{")
    with pytest.raises(TrainError, match=r"All checkpoints .* \(step-0000012, step-0000011\)"):
        Trainer(config, corpus, tmp_path).resume()


def test_metrics_of_a_run_cut_before_its_first_checkpoint_are_dropped(config, corpus, tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    trainer = Trainer(config, corpus, tmp_path)
    assert not trainer.resume()
    trainer.run()
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 13))


def test_a_run_begun_in_fp32_goes_on_in_fp16(config, corpus, tmp_path):
    """As when it moves from a CPU to a card like the T4, where the dtype is chosen anew."""
    Trainer(config, corpus, tmp_path).run(minutes=0)
    trainer = Trainer(config, corpus, tmp_path)
    trainer.scaler = torch.amp.GradScaler("cpu")
    assert trainer.resume()


def test_two_checkpoints_are_kept(config, corpus, tmp_path):
    Trainer(updated(config, checkpoint_minutes=1e-9), corpus, tmp_path).run()
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-0000011", "step-0000012"]


def test_minutes_bound_a_run_and_leave_a_checkpoint(config, corpus, tmp_path):
    trainer = Trainer(config, corpus, tmp_path)
    assert not trainer.run(minutes=0)
    assert (tmp_path / "step-0000000").is_dir()


def test_resuming_with_other_numbers_is_refused(config, corpus, tmp_path):
    Trainer(config, corpus, tmp_path).run(minutes=0)
    with pytest.raises(TrainError, match=r"begun with learning_rate = 0\.01"):
        Trainer(updated(config, learning_rate=1e-4), corpus, tmp_path).resume()


def test_a_loss_that_is_no_number_stops_the_run(config, corpus, tmp_path):
    trainer = Trainer(config, corpus, tmp_path)
    with torch.no_grad():
        trainer.model.wpe.weight.fill_(float("nan"))
    with pytest.raises(TrainError, match="loss became nan at step 1"):
        trainer.run()


def test_half_precision_trains_with_scaled_losses(config, corpus, tmp_path):
    trainer = Trainer(updated(config, dtype="fp16", max_steps=30), corpus, tmp_path)
    assert trainer.scaler.is_enabled()
    trainer.run()
    lines = metrics(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"]
