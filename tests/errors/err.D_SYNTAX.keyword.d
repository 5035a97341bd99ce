BEGIN { x = if; }
