struct s { int a; }; struct s x; BEGIN { @a[x] = count(); }
