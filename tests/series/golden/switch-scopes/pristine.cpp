void forward_add(const params * p, tensor * t);

void forward_add1(
        const params * p,
        tensor * t) {
    switch (t->kind) { case KIND_A: return; }
}

void forward_add(
        const params * p,
        tensor * t) {
    switch (t->kind) {
        case  KIND_A : // the first
            break;
    }
}

void forward_get(const params * p, tensor * t) {
    switch (t->kind) {
	case KIND_A:
        default: abort();
    }
}
