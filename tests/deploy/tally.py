"""Counts what holds and remembers what does not."""

defects = []
passed = 0


def check(holds, what):
    global passed
    if holds:
        passed += 1
    else:
        defects.append(what)


def end(name):
    """Prints one line for each defect and a `test result:` line, as cargo's; the exit status."""
    for defect in defects:
        print(f"{name}: {defect}")
    print(f"test result: {'ok' if not defects else 'FAILED'}. {passed} passed; {len(defects)} failed; 0 ignored")
    return 1 if defects else 0
