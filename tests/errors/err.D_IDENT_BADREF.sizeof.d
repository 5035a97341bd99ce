int a[int]; BEGIN { trace(sizeof (a)); }
