BEGIN { @a = count(); printa(pid, @a); }
