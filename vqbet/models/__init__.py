"""Networks: normaliser, quantisers, the residual VQ tokenizer and the prior over its codes (arXiv 2403.03181)."""
