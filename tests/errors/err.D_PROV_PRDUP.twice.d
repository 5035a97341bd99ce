provider x { probe a(); probe a(); };
