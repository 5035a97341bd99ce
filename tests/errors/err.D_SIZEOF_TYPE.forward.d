BEGIN { trace(sizeof (struct s)); }
