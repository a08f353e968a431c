const char * brace = "static const struct traits table[KIND_COUNT] = {";
static const struct traits table[KIND_COUNT] = {
    NEW_TRAITS,
    [KIND_A] = { .name = "a}", .size = 1, },
};
