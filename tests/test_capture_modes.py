"""`mimlab.capture` under every way to run a model: modes of autograd and precision, compiled, repeated, nested."""

import copy
import threading
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mimlab
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

from .handwritten_models import CODES, HEADS, Attention, Vit, build, images, listen, spread
from .probe_networks import expected_of

LAYOUT = Layout((3, 5), 1, (4.0, 4.0))
WRITTEN = ["MAE", "MAE, fused", "torchvision", "nn.TransformerEncoder"]
"""Explicit and fused, by hand and by PyTorch."""
written = pytest.mark.parametrize("name", WRITTEN)


def captured(model: nn.Module, *inputs: Tensor, **options: Any) -> Any:
    with mimlab.capture(model, **options) as capture:
        for x in inputs:
            model(x)
    return capture


@pytest.fixture
def truth():
    """Statistics of a model that another test has shown to be right."""

    def of(name: str, *inputs: Tensor, model: nn.Module | None = None) -> dict:
        model = build(name) if model is None else model
        return expected_of([listen(model, x) for x in inputs or [images()]], LAYOUT)

    return of


def near(capture, wanted, tolerance=4e-6, names=("entropy", "diversity", "prefix_mass")):
    for name in names:
        assert capture[name].shape == wanted[name].shape
        assert_allclose(capture[name], wanted[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@written
def test_modes_of_autograd(name, mode, truth):
    model = build(name)
    with mode():
        capture = captured(model, images())
        plain = model(images())
        with mimlab.capture(model):
            watched = model(images())
    near(capture, truth(name))
    assert watched.requires_grad == plain.requires_grad and watched.is_inference() == plain.is_inference()
    assert_allclose(watched.detach(), plain.detach(), rtol=1e-5, atol=1e-5)


@written
def test_gradients_are_identical(name):
    gradients = []
    for watch in (False, True):
        model, x = build(name), images().requires_grad_()
        if watch:
            with mimlab.capture(model, statistics="all"):
                model(x).square().sum().backward()
        else:
            model(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(plain, watched) for plain, watched in zip(*gradients, strict=True))


@written
def test_a_frozen_trunk_with_a_trained_input_keeps_its_gradients(name):
    model = build(name).requires_grad_(False)
    prompts = [images().requires_grad_(), images().requires_grad_()]
    model(prompts[0]).sum().backward()
    with mimlab.capture(model):
        model(prompts[1]).sum().backward()
    assert torch.equal(prompts[0].grad, prompts[1].grad)


@written
def test_autocast_in_bfloat16(name, truth):
    model = build(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(images())
        with mimlab.capture(model) as capture:
            watched = model(images())
    native = (
        name == "nn.TransformerEncoder"
    )  # PyTorch leaves its native path, which ends in bfloat16, under any mode
    assert native or watched.dtype == plain.dtype
    assert_allclose(watched.float(), plain.float(), rtol=0, atol=0.06)
    near(capture, truth(name), tolerance=0.06)
    exact = capture["mean_row_entropy"] - capture["entropy"]
    assert_allclose(capture["information"], exact, rtol=0, atol=1e-6)  # weights themselves are in float32


@written
@pytest.mark.parametrize(
    ("dtype", "output", "statistics"), [(torch.bfloat16, 0.06, 0.06), (torch.float64, 1e-12, 1e-9)]
)
def test_models_in_other_precisions(name, dtype, output, statistics, truth):
    model = build(name).to(dtype)
    with torch.no_grad():
        plain = model(images().to(dtype))
        with mimlab.capture(model) as capture:
            watched = model(images().to(dtype))
    assert watched.dtype == dtype
    assert_allclose(watched.double(), plain.double(), rtol=0, atol=output)
    near(capture, truth(name), tolerance=statistics)


@written
def test_dropout_draws_what_it_would_have_drawn(name, truth):
    """Measured are the weights before dropout: those of the logits."""
    model = build(name).train()
    torch.manual_seed(1)
    plain = model(images())
    torch.manual_seed(1)
    with mimlab.capture(model) as capture:
        watched = model(images())
    assert torch.equal(plain, watched)
    first = capture["entropy"][:, 0]
    assert_allclose(first, truth(name)["entropy"][:, 0], rtol=0, atol=4e-6)  # later layers get dropped inputs


@written
def test_compiled_models_run_eagerly_and_stay_compiled(name, truth):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    model = torch.compile(build(name), backend=backend)
    with torch.no_grad():
        plain = model(images())
        compiled = len(graphs)
        assert compiled
        with mimlab.capture(model) as capture:
            watched = model(images())
        assert len(graphs) == compiled
        after = model(images())
    assert len(graphs) == compiled  # the cache is as warm as it was
    assert capture.layers == [CODES[name].format(0), CODES[name].format(1)]
    near(capture, truth(name))
    assert_allclose(watched, plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(after, plain)


def test_compiled_parts_keep_the_names_that_they_had(truth):
    torch._dynamo.reset()
    model = build("MAE")
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    model.blocks[1].compile(backend="eager")
    with torch.no_grad():
        model(images())
        capture = captured(model, images(), layers=["blocks.0.attn", "blocks.1.attn"])
    assert capture.layers == ["blocks.0.attn", "blocks.1.attn"]
    near(capture, truth("MAE"))


class Checkpointed(Vit):
    reentrant = False

    def forward_blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.norm(x)


@pytest.mark.parametrize("inside", [False, True], ids=["backward after", "backward inside"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", ["softmax", "fused"])
def test_checkpointed_passes_are_measured_once(way, reentrant, inside, truth):
    """Backward runs the blocks once more, the last one first."""
    model = spread(Checkpointed([Attention(way), Attention(way)]))
    model.reentrant = reentrant
    wanted, x = truth("", model=build("MAE")), images().requires_grad_()
    model.load_state_dict(build("MAE").state_dict())
    model(x).sum().backward()
    plain, x.grad = x.grad, None
    with mimlab.capture(model) as capture:
        total = model(x).sum()
        if inside:
            total.backward()
    if not inside:
        total.backward()
    near(capture, wanted)
    assert_allclose(x.grad, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_backward_may_run_in_a_thread_of_its_own():
    """As it does for CUDA: what is repeated there is no forward pass in another thread."""
    model = spread(Checkpointed([Attention(), Attention()]))
    with mimlab.capture(model) as capture:
        total = model(images()).sum()
        thread = threading.Thread(target=total.backward)
        thread.start()
        thread.join()
    assert capture["entropy"].shape == (2, 2, HEADS)
    assert model.blocks[0].attn.qkv.weight.grad.any()


def test_training_steps_inside_are_passes_of_their_own():
    model = build("MAE, fused").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with mimlab.capture(model) as capture:
        for _ in range(3):
            optimizer.zero_grad()
            model(images()).square().mean().backward()
            optimizer.step()
    assert capture["entropy"].shape == (6, 2, HEADS)
    assert (capture["entropy"][0] != capture["entropy"][4]).all()


@written
def test_calls_of_several_sizes_of_batch_follow_each_other(name, truth):
    model, calls = build(name), (images(3), images(1, seed=9), images(2, seed=10))
    with torch.no_grad():
        capture = captured(model, *calls, statistics=["entropy", "diversity", "prefix_mass"])
    near(capture, truth(name, *calls))


def test_images_of_another_size_are_refused():
    model = build("MAE")
    with torch.no_grad(), pytest.raises(InputError, match=r"blocks\.0\.attn.*one size"):
        captured(model, images(), images(pixels=(16, 16)))


def test_a_part_of_a_model_is_named_as_in_the_whole(truth):
    """Calling model.blocks' parts directly, and capturing a part alone."""
    model = build("MAE")
    tokens = model.tokens(images())
    with torch.no_grad(), mimlab.capture(model, layout=LAYOUT) as whole:
        model.blocks[1](model.blocks[0](tokens))
    assert whole.layers == ["blocks.0.attn", "blocks.1.attn"]
    near(whole, truth("MAE"))
    with torch.no_grad(), mimlab.capture(model.blocks[0], layout=LAYOUT) as part:
        model.blocks[0](tokens)
    assert part.layers == ["attn"]
    assert_allclose(part["entropy"][:, 0], whole["entropy"][:, 0], rtol=1e-6)


def test_another_thread_is_an_error():
    model, raised = build("MAE"), []

    def work() -> None:
        try:
            model(images())
        except InputError as error:
            raised.append(str(error))

    with pytest.raises(InputError, match="another thread") as caught, mimlab.capture(model):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert raised == [str(caught.value)]
    assert "thread that opened the capture" in raised[0]


@pytest.mark.parametrize("same", [True, False], ids=["of one model", "of two"])
@written
def test_an_outer_capture_sees_what_the_inner_one_sees(name, same, truth):
    outer_model = build(name)
    inner_model = outer_model if same else build(name)
    with torch.no_grad(), mimlab.capture(outer_model, "all") as outer:
        outer_model(images())
        with mimlab.capture(inner_model, "all") as inner:
            inner_model(images(3, seed=8))
            if not same:
                outer_model(images(3, seed=8))
    near(inner, truth(name, images(3, seed=8)))
    near(outer, truth(name, images(), images(3, seed=8)))


def test_an_outer_capture_does_not_see_how_the_inner_one_measures():
    """With as many prefix tokens as patches, the tables of the inner one's own would look like attention."""
    model = spread(Vit([Attention("fused"), Attention("fused")], registers=14))
    layout = Layout((3, 5), 15, (4.0, 4.0))
    with torch.no_grad(), mimlab.capture(model, layout=layout) as outer, mimlab.capture(model, layout=layout):
        model(images())
    assert outer.layers == ["blocks.0.attn", "blocks.1.attn"]


def test_other_models_that_run_meanwhile_are_left_alone(truth):
    """A teacher beside a student; a function of nobody's."""
    student, teacher = build("MAE"), build("torchvision")
    with torch.no_grad(), mimlab.capture(student) as capture:
        teacher(images(4))
        student(images())
        torch.softmax(torch.zeros(2, 3, 7, 7), -1)
        teacher(images(4))
    assert capture.layers == ["blocks.0.attn", "blocks.1.attn"]
    near(capture, truth("MAE"))


class Faulty(Attention):
    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor:
        raise ZeroDivisionError("the model's own fault")


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_an_exception_leaves_nothing_behind(truth):
    model = Vit([Attention(), Faulty()]).eval()
    with pytest.raises(ZeroDivisionError, match="own fault"), mimlab.capture(model):
        model(images())
    assert not hooks_of(model)
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch._dynamo.eval_frame._stance.stance == "default"
    with torch.no_grad():
        near(captured(build("MAE"), images()), truth("MAE"))


def test_a_failed_call_does_not_count(truth):
    """A caught error inside, then a good pass: names and places are right."""
    model = build("MAE")
    with torch.no_grad(), mimlab.capture(model) as capture:
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 4, 12, 20))
        model(images())
    near(capture, truth("MAE"))


def test_one_model_can_be_captured_again(truth):
    model = build("MAE, fused")
    with torch.no_grad():
        first, second = captured(model, images()), captured(model, images())
    for capture in (first, second):
        near(capture, truth("MAE"))
    assert not hooks_of(model)


def test_copies_of_a_captured_model_are_free(truth):
    model = build("MAE")
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
        twin = copy.deepcopy(model)  # with the hooks that stand at this moment
    near(capture, truth("MAE"))
    with torch.no_grad():
        near(captured(twin, images()), truth("MAE"))
        thread = threading.Thread(target=twin, args=(images(),))  # the hooks would object
        thread.start()
        thread.join()
        assert_allclose(twin(images()), model(images()))
    assert capture["entropy"].shape == (2, 2, HEADS)


class Shared(Vit):
    """One block, called three times in a pass."""

    def forward_blocks(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.blocks[0](x)
        return x


@pytest.mark.parametrize("method", ["forward", "__call__"])
def test_a_block_called_several_times_is_several_layers(method):
    model = spread(Shared([Attention()]))
    wanted = expected_of([listen(model, images())], LAYOUT)
    with torch.no_grad(), mimlab.capture(model) as capture:
        getattr(model, method)(images())
    assert capture.layers == ["blocks.0.attn"] * 3
    near(capture, wanted)
    with torch.no_grad(), mimlab.capture(model, layers=[1]) as capture:
        getattr(model, method)(images())
    assert_allclose(capture["entropy"][:, 0], wanted["entropy"][:, 1], atol=4e-6)


@written
def test_other_modes_stay_in_force(name):
    """A default device is one."""
    model = build(name)
    with torch.no_grad(), torch.device("cpu"), mimlab.capture(model) as capture:
        model(images())
    assert capture["entropy"].shape == (2, 2, HEADS)
