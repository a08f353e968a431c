enum kind {
    KIND_COUNT   =   7,
};
int KIND_COUNT = 7;
