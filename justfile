# One command per job; `just` alone lists them.

_default:
    @just --list --unsorted

# Install what building, testing, the lab or the benches need: unit, lab or bench
setup what="unit":
    scripts/setup {{what}}

# Everything before a push
test *filter:
    scripts/test {{filter}}

# Format, lints, supply chain, native tests
unit *filter:
    scripts/test unit {{filter}}

# End-to-end tests on a real kernel
lab *filter:
    scripts/test lab {{filter}}

# The main job, shown
demo:
    scripts/demo

# A bench by name
bench *args:
    scripts/bench {{args}}
