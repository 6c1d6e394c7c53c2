#!/usr/bin/env python3
"""Predicts the time of attention in a step that decodes and prefills, by placing its blocks on an H100.

    python3 benches/mixed_attention.py [ROWS [CONTEXT]]

Prints microseconds a layer of Llama-3.1-8B in bfloat16, for chunks of several lengths: one kernel after the other, and side by
side with either of them queued first. Blocks go to the multiprocessor with the most shared memory left, those of the second
kernel when all of the first are placed. Decode blocks share the bandwidth; prefill blocks are bound by their own latency and
share a multiprocessor's tensor cores. The rates are assumptions, named below; launches and waits are left out.
"""

import sys

MULTIPROCESSORS = 132
SHARED_KIB = 227
KEY_VALUE_HEADS, GROUP, HEAD_DIM = 8, 4, 128
CHUNKS = (64, 128, 256, 500, 1000, 1900)

# Decode: a block reads a split of keys and values.
SPLIT = 256
SPLIT_BYTES = SPLIT * HEAD_DIM * 2 * 2
DECODE_KIB = 71
BANDWIDTH = 3.0e6  # bytes a microsecond, of all blocks together
BLOCK_BANDWIDTH = 4.0e4  # of one block at most

# Prefill: a block multiplies its rows with tiles of keys.
PREFILL_ROWS, PREFILL_KEYS = 128, 64
PREFILL_KIB = 65
MOST_PREFILLS = 2  # on a multiprocessor, by their registers
TILES_PER_US = {1: 0.40, 2: 0.33}  # of a block, by the number of prefill blocks on its multiprocessor


class Block:
    """A block's kind, and its work: bytes to read (decode) or tiles to multiply (prefill)."""

    def __init__(self, is_prefill, work):
        self.is_prefill, self.work, self.place = is_prefill, work, None
        self.kib = PREFILL_KIB if is_prefill else DECODE_KIB


def decode_blocks(rows, context):
    return [Block(False, SPLIT_BYTES) for _ in range(rows * KEY_VALUE_HEADS * -(-context // SPLIT))]


def prefill_blocks(tokens):
    """The blocks of a prompt's first chunk, in the order of the grid: tiles of rows, for each head."""
    step = PREFILL_ROWS // GROUP
    ends = [min(tokens, first + step) for first in range(0, tokens, step)]
    return [Block(True, -(-end // PREFILL_KEYS)) for _ in range(KEY_VALUE_HEADS) for end in ends]


class Gpu:
    def __init__(self):
        self.free = [SHARED_KIB] * MULTIPROCESSORS
        self.prefills = [0] * MULTIPROCESSORS
        self.running = []

    def place(self, block):
        """Puts a block where most shared memory is free; False if it fits nowhere."""
        has_registers = (p for p in range(MULTIPROCESSORS) if not block.is_prefill or self.prefills[p] < MOST_PREFILLS)
        place = max(has_registers, key=self.free.__getitem__, default=None)
        if place is None or self.free[place] < block.kib:
            return False
        self.free[place] -= block.kib
        self.prefills[place] += block.is_prefill
        block.place = place
        self.running.append(block)
        return True

    def run(self):
        """Runs until some block ends; returns the time."""
        decodes = sum(not block.is_prefill for block in self.running)
        bandwidth = min(BLOCK_BANDWIDTH, BANDWIDTH / max(decodes, 1))
        rates = [TILES_PER_US[self.prefills[b.place]] if b.is_prefill else bandwidth for b in self.running]
        time = min(block.work / rate for block, rate in zip(self.running, rates))
        for block, rate in zip(self.running, rates):
            block.work -= time * rate
        ended = [block for block in self.running if block.work < 1e-6]
        self.running = [block for block in self.running if block.work >= 1e-6]
        for block in ended:
            self.free[block.place] += block.kib
            self.prefills[block.place] -= block.is_prefill
        return time


def time(first, second=()):
    """The time of two kernels side by side, of which `first` is queued first."""
    gpu, queues, total = Gpu(), [list(reversed(first)), list(reversed(second))], 0.0
    while any(queues) or gpu.running:
        for queue in queues:
            while queue and gpu.place(queue[-1]):
                queue.pop()
            if queue:
                break
        total += gpu.run()
    return total


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    context = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    print(f"{rows} rows of {context} tokens decode; a chunk of so many tokens prefills; us a layer")
    print(f"{'chunk':>6} {'in turn':>8} {'decode first':>13} {'prefill first':>14}")
    for tokens in CHUNKS:
        pair = lambda: (decode_blocks(rows, context), prefill_blocks(tokens))  # blocks are used up
        in_turn = sum(time(blocks) for blocks in pair())
        print(f"{tokens:>6} {in_turn:>8.0f} {time(*pair()):>13.0f} {time(*reversed(pair())):>14.0f}")


if __name__ == "__main__":
    main()
