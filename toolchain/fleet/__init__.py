"""Many Macs over SSH: an inventory, waves, halt rules, and a journal, with `tq` on each host."""
