"""Which memory instructions touch: what the assembler makes, against what it was told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sentry.kernel.operands import GENERAL, touched

CASES = [
    ("mov (%rax),%ecx", [(0x1000, 4)]),
    ("mov %rcx,0x10(%rax)", [(0x1010, 8)]),
    ("movb $1,-1(%rax)", [(0xFFF, 1)]),
    ("addw $1,(%rax,%rbx,4)", [(0x9000, 2)]),
    ("mov (%r13,%r14,8),%r15", [(0xD000 + 8 * 0xE000, 8)]),
    ("mov 0x123456(,%r12,2),%eax", [(0x123456 + 2 * 0xC000, 4)]),
    ("mov 8(%rsp),%r11", [(0x5008, 8)]),
    ("mov 0x20(%rip),%eax", [(0x400000 + 6 + 0x20, 4)]),
    ("mov %fs:0x28,%rax", [(0x7000_0028, 8)]),
    ("mov %gs:(%rbx),%al", [(0x7100_2000, 1)]),
    ("lea 8(%rax),%rcx", []),
    ("nopl (%rax)", []),
    ("mov %rax,%rcx", []),
    ("push %rax", [(0x4FF8, 8)]),
    ("push (%rax)", [(0x4FF8, 8), (0x1000, 8)]),
    ("pop %rbx", [(0x5000, 8)]),
    ("ret", [(0x5000, 8)]),
    ("call .", [(0x4FF8, 8)]),
    ("leave", [(0x6000, 8)]),
    ("movsl", [(0x7000, 4), (0x8000, 4)]),
    ("rep stosb", [(0x8000, 1)]),
    ("lodsq", [(0x7000, 8)]),
    ("movabs 0x1122334455667788,%al", [(0x1122334455667788, 1)]),
    ("movsd (%rax),%xmm1", [(0x1000, 8)]),
    ("movss %xmm1,(%rax)", [(0x1000, 4)]),
    ("movaps (%rax),%xmm9", [(0x1000, 16)]),
    ("movd (%rax),%xmm0", [(0x1000, 4)]),
    ("movq (%rax),%xmm0", [(0x1000, 8)]),
    ("movzbl (%rax),%ecx", [(0x1000, 1)]),
    ("vmovups (%r9,%rbx),%ymm3", [(0x9000 + 0x2000, 32)]),
    ("vmovsd (%rax),%xmm1", [(0x1000, 8)]),
    ("vpaddd (%r10),%xmm1,%xmm2", [(0xA000, 16)]),
    ("lock cmpxchg %ecx,(%rax)", [(0x1000, 4)]),
    ("sete (%rax)", [(0x1000, 1)]),
]


class Registers:
    def __init__(self) -> None:
        for number, name in enumerate(GENERAL):
            setattr(self, name, number << 12)
        self.rax, self.rbx, self.rcx, self.rdx = 0x1000, 0x2000, 0x3000, 0x4000
        self.rsp, self.rbp, self.rsi, self.rdi = 0x5000, 0x6000, 0x7000, 0x8000
        self.rip, self.fs_base, self.gs_base = 0x400000, 0x7000_0000, 0x7100_0000


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Each case's instruction, at a multiple of 32 bytes."""
    folder: Path = tmp_path_factory.mktemp("operands")
    source = folder / "cases.s"
    source.write_text("".join(f".balign 32\n{text}\n" for text, _ in CASES) + ".balign 32\n")
    subprocess.run(["as", "-o", folder / "cases.o", source], check=True, timeout=60)
    flat = ["objcopy", "-O", "binary", "-j", ".text", folder / "cases.o", folder / "cases.bin"]
    subprocess.run(flat, check=True, timeout=60)
    data = (folder / "cases.bin").read_bytes()
    return [data[at : at + 15] for at in range(0, 32 * len(CASES), 32)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[text for text, _ in CASES])
def test_operands(codes: list[bytes], number: int) -> None:
    assert touched(Registers(), codes[number]) == CASES[number][1]
