struct s { char a[257]; }; struct s x; BEGIN { a[x] = 1; }
