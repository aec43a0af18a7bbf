"""How many texts a second sentence-transformers and ONNX Runtime embed.

Both go from texts to normalised vectors: tokens, encoder, mean over the tokens,
length 1. Loading and export are not timed. Both must give the same vectors to
1e-4, or the script fails. It prints one JSON line.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
import warnings

from peft_update import limit_threads, read_csv

LIMIT = 1e-4


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the model's folder")
    parser.add_argument("--texts", required=True, help="CSV with the columns text and label")
    parser.add_argument("--count", type=int, default=2000, help="take the first texts")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu",
        help="of sentence-transformers; ONNX Runtime is left out on a card",
    )
    return parser.parse_args()


def sentence_transformers_encoder(args):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(args.model, device=args.device)
    # The model's own figure is in a file that recent releases no longer read.
    model.max_seq_length = args.max_tokens

    def encode(texts):
        return model.encode(
            texts, batch_size=args.batch, normalize_embeddings=True, show_progress_bar=False
        )

    return encode


def export(folder, file):
    """Writes the encoder with pooling and normalisation as one ONNX graph."""
    import torch
    from transformers import AutoModel

    class Embedder(torch.nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask):
            hidden = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    # Attention in its plain form: ONNX Runtime fuses more of it than of SDPA's, which comes
    # with a check for NaN.
    encoder = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.randint(1000, 2000, (3, 17))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedder(encoder),
            (ids, mask),
            file,
            input_names=["input_ids", "attention_mask"],
            output_names=["vectors"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            external_data=False,
            verbose=False,
        )


def onnxruntime_encoder(args, file):
    import numpy
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(args.max_tokens)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(
        file, options, providers=["CPUExecutionProvider"]
    )

    def encode(texts):
        encoded = [each.ids for each in tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda at: len(encoded[at]), reverse=True)
        vectors = [None] * len(texts)
        for start in range(0, len(order), args.batch):
            chosen = order[start : start + args.batch]
            ids = numpy.zeros((len(chosen), len(encoded[chosen[0]])), dtype=numpy.int64)
            mask = numpy.zeros_like(ids)
            for row, at in enumerate(chosen):
                ids[row, : len(encoded[at])] = encoded[at]
                mask[row, : len(encoded[at])] = 1
            found = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            for row, at in enumerate(chosen):
                vectors[at] = found[row]
        return numpy.stack(vectors)

    return encode


def timed(encode, texts):
    """Texts per second and the vectors, after a warm-up on some of the texts."""
    encode(texts[:128])
    begun = time.perf_counter()
    vectors = encode(texts)
    return round(len(texts) / (time.perf_counter() - begun), 2), vectors


def main():
    args = parse()
    limit_threads(args.threads)
    import numpy
    import onnxruntime
    import sentence_transformers
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    texts = [text for text, _ in read_csv(args.texts)[: args.count]]

    rate, vectors = timed(sentence_transformers_encoder(args), texts)
    report = {
        "sentence_transformers_texts_per_second": rate,
        "onnxruntime_texts_per_second": None,
        "largest_difference": None,
    }
    if args.device == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            file = str(pathlib.Path(folder) / "embedder.onnx")
            export(args.model, file)
            encode = onnxruntime_encoder(args, file)
        rate, others = timed(encode, texts)
        difference = float(numpy.abs(vectors - others).max())
        # Written so that a NaN fails as well.
        if not difference <= LIMIT:
            sys.exit(f"the vectors differ by {difference:.1e}, more than {LIMIT:.0e}")
        report["onnxruntime_texts_per_second"] = rate
        report["largest_difference"] = difference
    report |= {
        "texts": len(texts),
        "batch": args.batch,
        "threads": args.threads,
        "device": args.device,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sentence_transformers": sentence_transformers.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
