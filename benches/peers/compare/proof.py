"""Before anything is measured: does each proxy do what it is measured at? The origin is the witness."""

from .cell import Stage
from .proxies import NAME


def prove(setup, proxy):
    """What the origin saw of a proxy. `problems` is empty if it sent SNI, showed its certificate, and gave no byte
    of its client to an origin of another authority or of another name."""
    with Stage(setup, proxy) as stage:
        try:
            stage.load("--work", "ask")
        except RuntimeError as error:
            return {"parameters": [], "problems": [f"no answer of the right origin: {error}"]}
        record = stage.record()
    parameters = sorted(record["handshakes"])
    problems = [f"odd handshake: {text}" for text in parameters
                if f"SNI {NAME}," not in text or "with client certificate" not in text or "X25519" not in text]
    if record["served"] != 1:
        problems.append(f"the right origin served {record['served']} instead of one")
    for show in ("stranger", "misnamed"):
        with Stage(setup, proxy, show=show) as stage:
            try:
                stage.load("--work", "ask")
                problems.append(f"took the origin that is {show}")
            except RuntimeError:
                pass  # as it should be
            if stage.record()["served"]:
                problems.append(f"gave data to the origin that is {show}")
    return {"parameters": parameters, "problems": problems}
