"""Makes the pair: `train.py amateur` (tokenizer, pre-training), then `train.py expert` (post-training of that amateur)."""
import copy
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import world

HERE = Path(__file__).parent
BOS, EOS, TURN, TURN_END, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
TOKENS, EMBEDDING_ROWS = 1500, 1536
# The pre-tokenizer of Qwen2: that of Llama 3 with every digit on its own.
PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MODEL_SEED, PROSE_SEED, CHAT_SEED = 11, 12, 13
BLOCK, PRETRAIN_BATCH, PRETRAIN_STEPS, PRETRAIN_RATE = 256, 16, 3200, 3e-3
CHATS, CHAT_BATCH, CHAT_RATE = 96_000, 32, 1e-3
IGNORED = -100
WORKERS = 2  # one thread each: threads that meet at every operation are slow on a shared machine


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[BOS, EOS, TURN, TURN_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chats = world.conversations(CHAT_SEED, 10_000)
    contents = [message["content"] for chat in chats for message in chat]
    tokenizer.train_from_iterator(world.documents(PROSE_SEED, 20_000) + contents, trainer)
    with_bos = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), with_bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN, TURN_END],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=(HERE / "chat_template.jinja").read_text().rstrip("\n"),
    )


def make_model(tokenizer):
    torch.manual_seed(MODEL_SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=EMBEDDING_ROWS,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer, texts):
    return [piece.ids for piece in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def prose_blocks(tokenizer):
    """Documents end to end, cut into blocks of BLOCK + 1 tokens."""
    wanted = PRETRAIN_BATCH * PRETRAIN_STEPS * (BLOCK + 1)
    ids, seed = [], PROSE_SEED
    while len(ids) < wanted:
        texts = [BOS + text + EOS for text in world.documents(seed, 20_000)]
        ids += [token for document in encode(tokenizer, texts) for token in document]
        seed += 100
    return torch.tensor(ids[:wanted], dtype=torch.int16).view(PRETRAIN_STEPS, PRETRAIN_BATCH, BLOCK + 1)


def prose_batches(tokenizer):
    return [(blocks[:, :-1], blocks[:, 1:]) for blocks in prose_blocks(tokenizer)]


def chat_example(tokenizer, messages):
    """Token ids, and the targets: only the replies and the end of their turn are learned."""
    ids, targets = [tokenizer.bos_token_id], [IGNORED]
    for message in messages:
        opening, body = encode(tokenizer, [f"{TURN}{message['role']}\n", message["content"] + TURN_END])
        newline = encode(tokenizer, ["\n"])[0]
        learned = body if message["role"] == "assistant" else [IGNORED] * len(body)
        ids += opening + body + newline
        targets += [IGNORED] * len(opening) + learned + [IGNORED] * len(newline)
    return ids, targets


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def chat_batches(tokenizer):
    examples = [chat_example(tokenizer, chat) for chat in world.conversations(CHAT_SEED, CHATS)]
    examples.sort(key=lambda example: len(example[0]))
    batches = [examples[i : i + CHAT_BATCH] for i in range(0, CHATS, CHAT_BATCH)]
    random.Random(CHAT_SEED).shuffle(batches)
    columns = [zip(*batch) for batch in batches]
    return [(padded(ids, tokenizer.pad_token_id)[:, :-1], padded(targets, IGNORED)[:, 1:]) for ids, targets in columns]


def train(model, batches, peak_rate):
    """Trains in WORKERS processes, each with its own rows of every batch."""
    model.share_memory()
    with tempfile.TemporaryDirectory() as meeting_place:
        mp.start_processes(work, (model, batches, peak_rate, meeting_place), WORKERS, start_method="fork")


def work(rank, shared, batches, peak_rate, meeting_place):
    dist.init_process_group("gloo", f"file://{meeting_place}/meet", rank=rank, world_size=WORKERS)
    model = DistributedDataParallel(copy.deepcopy(shared))
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    steps = len(batches)
    factor = lambda step: min((step + 1) * 20 / steps, 0.55 + 0.45 * math.cos(math.pi * step / steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    start, recent = time.time(), []
    for step, (ids, targets) in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[rank::WORKERS].long(), use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1).float(), targets[rank::WORKERS].long().flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent.append(loss.item())
        if rank == 0 and step % 50 == 0:
            print(f"step {step}/{steps} loss {sum(recent[-50:]) / 50:.3f} {time.time() - start:.0f} s", flush=True)
    if rank == 0:
        shared.load_state_dict(model.module.state_dict())
    dist.destroy_process_group()


def save(model, tokenizer, folder, stops):
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    # The name that every version of transformers knows.
    settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def make_amateur():
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    train(model, prose_batches(tokenizer), PRETRAIN_RATE)
    save(model, tokenizer, HERE / "amateur", tokenizer.eos_token_id)


def make_expert():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HERE / "amateur")
    model = LlamaForCausalLM.from_pretrained(HERE / "amateur", dtype=torch.float32)
    train(model, chat_batches(tokenizer), CHAT_RATE)
    save(model, tokenizer, HERE / "expert", tokenizer.convert_tokens_to_ids([TURN_END, EOS]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"amateur": make_amateur, "expert": make_expert}[sys.argv[1]]()
