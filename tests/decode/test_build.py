"""Which library is compiled, by what, and what is said where there is no compiler."""

import shutil

import pytest

from storygen.decode import build
from storygen.errors import EngineError


def flags(monkeypatch, *names):
    monkeypatch.setattr(build, "levels", lambda: build.X86_LEVELS)
    monkeypatch.setattr(build, "processor_flags", lambda: frozenset(names))


@pytest.mark.parametrize(
    ("able", "level"),
    [
        (("avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"), "avx512-bf16"),
        (("avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2"), "avx512-vnni"),
        (("avx2", "fma", "f16c", "bmi2", "avx512bw"), "avx2"),
        (("avx2",), "any"),
        ((), "any"),
    ],
)
def test_the_best_level_that_the_processor_can_run_is_taken(monkeypatch, able, level):
    flags(monkeypatch, *able)
    assert build.best_level() == level


def test_a_library_is_compiled_once(tmp_path, monkeypatch, native_folder, library):
    name = build.file_name(build.best_level())
    shutil.copy(native_folder / name, tmp_path / name)
    monkeypatch.setattr(build, "find_compiler", lambda: None)  # none is needed
    assert build.native_library(tmp_path).storygen_open
    assert "native code" in build.described(tmp_path)


def test_without_a_compiler_it_is_said_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    with pytest.raises(EngineError, match=r"no C compiler is here: install clang .* ziglang"):
        build.native_library(tmp_path)
    assert "by PyTorch" in build.described(tmp_path)


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FLAGS", ("--no-such-option",))
    with pytest.raises(EngineError, match=r"could not compile decode\.c: .*no-such-option"):
        build.native_library(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_zig_is_spoken_to_in_its_own_words():
    zig = ["python", "-m", "ziglang", "cc"]
    assert build.in_its_words(zig, ["-O3", "-march=x86-64-v4"]) == ["-O3", "-march=x86_64_v4"]
    assert build.in_its_words(["gcc"], ["-march=x86-64-v4"]) == ["-march=x86-64-v4"]
