"""pgpubsub in the frameworks that people live in. Each module needs the extra of its name, and is imported alone."""
