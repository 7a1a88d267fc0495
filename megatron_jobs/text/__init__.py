"""Text in: files, lines, documents, sentences, tokenizers; never torch."""
