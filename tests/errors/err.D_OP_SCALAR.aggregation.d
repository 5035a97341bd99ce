BEGIN { @a++; }
