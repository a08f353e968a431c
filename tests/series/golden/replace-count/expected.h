enum kind {
    KIND_COUNT = 9,
};
int KIND_COUNT = 7;
