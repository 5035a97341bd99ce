provider x1 { probe a(); };
