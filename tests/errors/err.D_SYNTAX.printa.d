BEGIN { @ = count(); printa(@); }
