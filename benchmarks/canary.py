"""The canary judge against its bars, beside the rules of its peers, on the same seeded streams.

    python benchmarks/canary.py [--quick]

Exit status 1 if a bar is missed. `--quick` draws fewer rollouts (under a minute); its shares are rougher.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from mlcicd.rollout import Judge, JudgeSpec, MetricSpec
from mlcicd.rollout.decision import Action
from mlcicd.rollout.eprocess import log_mixture, rate_log_factors
from mlcicd.rollout.rates import HARM_LOG_WEIGHTS, HARM_THETAS
from mlcicd.rollout.sample_ratio import SampleRatio
from mlcicd.rollout.simulate import REFERENCE_LEVELS, Stream, Traffic, simulate, simulate_rollout
from mlcicd.rollout.spec import GuardSpec

HOUR = 360  # windows of 10 s
PER_WINDOW = 500
CHAMPION = 0.005


@dataclass
class Report:
    """The lines printed so far, and whether every bar has held."""

    missed: list[str] = field(default_factory=list)

    def bar(self, number: int, what: str, value: float, limit: float, form: str = ".4g") -> None:
        held = value <= limit
        if not held:
            self.missed.append(f"{number}: {what}")
        print(f"  [{'ok' if held else 'MISSED'}] {number}  {what:<66} {value:>9{form}}   bar <= {limit:{form}}")

    @staticmethod
    def note(what: str, value: str) -> None:
        print(f"         {what:<69} {value}")


@dataclass
class Counts:
    """Requests and errors of both arms, shape (runs, windows)."""

    n_a: np.ndarray
    x_a: np.ndarray
    n_b: np.ndarray
    x_b: np.ndarray


def draw(runs: int, windows: int, ratio: float, seed: int, *, ramp: bool = False) -> Counts:
    """Poisson traffic; with `ramp`, shares 5-10-25-50 % while the base error drifts from 0.3 to 1.5 %."""
    rng = np.random.default_rng(seed)
    share = np.repeat([0.05, 0.1, 0.25, 0.5], -(-windows // 4))[:windows] if ramp else np.full(windows, 0.1)
    base = np.linspace(0.003, 0.015, windows) if ramp else np.full(windows, CHAMPION)
    n = rng.poisson(PER_WINDOW, (runs, windows))
    n_b = rng.binomial(n, share)
    return Counts(n - n_b, rng.binomial(n - n_b, base), n_b, rng.binomial(n_b, base * ratio))


def first_true(hits: np.ndarray) -> np.ndarray:
    """The first window that is true, by run; -1 where none is."""
    return np.where(hits.any(1), hits.argmax(1), -1)


def judge_rule(counts: Counts, alpha: float) -> np.ndarray:
    """The judge's own test of one rate, all runs at once (checked against the judge itself in `agree`)."""
    found = []
    for i in range(0, len(counts.n_a), 250):
        part = slice(i, i + 250)
        factors = rate_log_factors(
            counts.x_a[part], counts.n_a[part], counts.x_b[part], counts.n_b[part], 1.0, HARM_THETAS
        )
        found.append(first_true(log_mixture(np.cumsum(factors, axis=1), HARM_LOG_WEIGHTS) >= -math.log(alpha)))
    return np.concatenate(found)


def failed_checks_rule(counts: Counts, fails: int) -> np.ndarray:
    """Once a minute: success rate below 99 %? Roll back at so many failed checks (Flagger, Argo Rollouts)."""
    x, n = per_minute(counts.x_b), per_minute(counts.n_b)
    minute = first_true(np.cumsum(1 - x / np.maximum(n, 1) < 0.99, axis=1) >= fails)
    return np.where(minute < 0, -1, minute * 6 + 5)


def z_rule(counts: Counts) -> np.ndarray:
    """A pooled z test at 5 % (two-sided), looking every window."""
    x_a, n_a, x_b, n_b = (np.cumsum(v, axis=1) for v in (counts.x_a, counts.n_a, counts.x_b, counts.n_b))
    pooled = (x_a + x_b) / (n_a + n_b)
    deviation = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-300) * (1 / n_a + 1 / n_b))
    return first_true((x_b / n_b - x_a / n_a) / deviation > NormalDist().inv_cdf(0.975))


def mann_whitney_rule(counts: Counts) -> np.ndarray:
    """At the end: do the minutes' error rates rank higher in the canary, at 98 %? (Kayenta's judge)"""
    a = per_minute(counts.x_a) / np.maximum(per_minute(counts.n_a), 1)
    b = per_minute(counts.x_b) / np.maximum(per_minute(counts.n_b), 1)
    size = a.shape[1]
    above = (b[:, :, None] > a[:, None, :]).sum((1, 2)) + 0.5 * (b[:, :, None] == a[:, None, :]).sum((1, 2))
    z = (above - size * size / 2) / math.sqrt(size * size * (2 * size + 1) / 12)
    return np.where(z > NormalDist().inv_cdf(0.99), counts.n_a.shape[1] - 1, -1)


def per_minute(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1, 6).sum(2)


def served(counts: Counts, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canary requests and errors until detection, of the runs that detected."""
    runs = np.flatnonzero(at >= 0)
    return np.cumsum(counts.n_b, axis=1)[runs, at[runs]], np.cumsum(counts.x_b, axis=1)[runs, at[runs]]


def bound(p_b: float) -> float:
    """Wald's bound: log(1/alpha) over the information of a canary request and its nine champion requests."""

    def divergence(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    common = (9 * CHAMPION + p_b) / 10
    return math.log(20) / (9 * divergence(CHAMPION, common) + divergence(p_b, common))


def false_rollbacks(report: Report, runs: int) -> None:
    print("\nFalse rollbacks of an equal canary within the hour, errors, looking every 10 s")
    for name, ramp in (("steady, 10 %", False), ("ramp 5-10-25-50 %, base drifting 0.3 -> 1.5 %", True)):
        counts = draw(runs, HOUR, 1.0, seed=1, ramp=ramp)
        for alpha, limit in ((0.1, 0.1), (0.05, 0.03), (0.01, 0.01)):
            report.bar(1, f"{name}, alpha {alpha}", float(np.mean(judge_rule(counts, alpha) >= 0)), limit)
        for peer, rule in PEERS.items():
            report.note(f"  {peer}", f"{np.mean(rule(counts) >= 0):.1%}")


PEERS = {
    "success rate < 99 %, 10 failed checks (Flagger)": lambda c: failed_checks_rule(c, 10),
    "success rate < 99 %, more than 3 failed (Argo Rollouts)": lambda c: failed_checks_rule(c, 4),
    "Mann-Whitney at the end of the hour (Kayenta)": mann_whitney_rule,
    "z test, looking every 10 s": z_rule,
}


def detection(report: Report, runs: int) -> None:
    print("\nCanary requests and errors served until detection, champion 0.5 %, alpha 0.05")
    limits = {0.01: (1.6, 2200, 25), 0.02: (1.6, 350, 8), 0.05: (2.5, 100, 5)}
    for p_b, (ratio, requests, errors) in limits.items():
        counts = draw(runs, HOUR, p_b / CHAMPION, seed=2)
        at = judge_rule(counts, 0.05)
        n, x = served(counts, at)
        # Runs that did not detect count with all they served, so that missing one can not help the mean.
        mean = (n.sum() + counts.n_b[at < 0].sum()) / runs
        report.bar(
            2,
            f"-> {p_b:.0%}: mean requests over the power-one bound ({bound(p_b):.0f})",
            mean / bound(p_b),
            ratio,
        )
        report.bar(3, f"-> {p_b:.0%}: median canary requests", float(np.median(n)), requests)
        report.bar(3, f"-> {p_b:.0%}: median errors served", float(np.median(x)), errors)
        for peer, rule in PEERS.items():
            when = rule(counts)
            n, x = served(counts, when)
            text = f"{np.median(n):.0f} / {np.median(x):.0f}" if len(n) else "never"
            report.note(f"  {peer}", f"{text}   power {np.mean(when >= 0):.0%}")


REFERENCE = tuple(float(v) for v in np.diff([0.0, *REFERENCE_LEVELS, 1.0]) * 20_000)
LATENCY = MetricSpec("latency", "histogram", "latency", reference=REFERENCE)
SCORES = MetricSpec("scores", "histogram", "scores", critical=True, reference=REFERENCE)


def distributions(report: Report, runs: int) -> None:
    print("\nCanary requests (50 a window) until a distribution is found to differ, alpha 0.05, median")
    cases = [
        (4, "latency +20 % everywhere", LATENCY, Stream(even=True, latency=True, latency_factor=1.2), 150),
        (4, "latency +100 % everywhere", LATENCY, Stream(even=True, latency=True, latency_factor=2.0), 50),
        (
            4,
            "latency +20 % beyond the p95 only",
            LATENCY,
            Stream(even=True, latency=True, tail_factor=1.2),
            800,
        ),
        (
            4,
            "latency +100 % beyond the p95 only",
            LATENCY,
            Stream(even=True, latency=True, tail_factor=2.0),
            220,
        ),
        (5, "predictions, logit +0.1", SCORES, Stream(even=True, scores=True, score_shift=0.1), 1050),
        (5, "predictions, logit +0.5", SCORES, Stream(even=True, scores=True, score_shift=0.5), 60),
    ]
    for number, name, metric, stream, limit in cases:
        found = simulate(only(metric), stream, runs=runs, seed=3, max_windows=HOUR)
        median, mean = found.canary_requests
        report.bar(number, f"{name} (mean {mean:.0f}, found {found.rolled_back:.0%})", median, limit)
        if name == "predictions, logit +0.1":
            report.note("  stretch: 800", "reached" if median <= 800 else "not reached")
        for peer, rule in (LATENCY_PEERS if metric is LATENCY else SCORE_PEERS).items():
            report.note(f"  {peer}", peer_detection(rule, stream, max(runs // 5, 40)))
    for name, metric, stream in (
        ("latency", LATENCY, Stream(latency=True)),
        ("predictions", SCORES, Stream(scores=True)),
    ):
        equal = simulate(only(metric), stream, runs=max(runs // 3, 60), seed=4, max_windows=HOUR // 3)
        report.bar(1, f"{name} of an equal canary, 20 minutes, {equal.runs} runs", equal.rolled_back, 0.05)
        for peer, rule in (LATENCY_PEERS if metric is LATENCY else SCORE_PEERS).items():
            found = [rule(*histograms(stream, seed)) >= 0 for seed in seeds(4, max(runs // 5, 40))]
            report.note(f"  {peer}", f"{np.mean(found):.1%}")


def only(metric: MetricSpec) -> JudgeSpec:
    return JudgeSpec(metrics=(metric,), alpha=0.05, sample_ratio=False)


# --- the peers' rules for distributions: from counts by window and bin to the window at which they fire, or -1

PEER_WINDOWS = HOUR // 3
SLOWER = REFERENCE_LEVELS.index(0.975) + 1  # bins beyond 1.17 times the champion's p95


def seeds(seed: int, runs: int) -> list[np.random.SeedSequence]:
    """As `simulate` draws its rollouts."""
    return np.random.SeedSequence(seed).spawn(runs)


def histograms(stream: Stream, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
    """Counts by window and bin of champion and canary, 20 minutes of the very stream that the judge sees."""
    traffic, rows = Traffic(stream, seed), ([], [])
    for _ in range(PEER_WINDOWS):
        window = traffic.draw(0.1)
        for arm, row in zip((window.champion, window.canary), rows, strict=True):
            row.append((arm.latency_ms or arm.scores).counts)
    return np.array(rows[0], float), np.array(rows[1], float)


def peer_detection(rule, stream: Stream, runs: int) -> str:
    """Median of canary requests until a rule fires, and how often it does within 20 minutes."""
    requests = []
    for seed in seeds(3, runs):
        a, b = histograms(stream, seed)
        at = rule(a, b)
        if at >= 0:
            requests.append(b[: at + 1].sum())
    power = f"{len(requests) / runs:.0%}"
    return f"{np.median(requests):.0f}   power {power}" if requests else "never"


def minutes(counts: np.ndarray) -> np.ndarray:
    return counts.reshape(-1, 6, counts.shape[1]).sum(1)


def p95_rule(a: np.ndarray, b: np.ndarray, fails: int) -> int:
    """Once a minute: is the canary's p95 above 1.17 times the champion's usual one? Back at so many fails (Flagger,
    Argo Rollouts: a threshold on a quantile)."""
    slow = minutes(b)[:, SLOWER:].sum(1) / np.maximum(minutes(b).sum(1), 1) > 0.05
    hits = np.cumsum(slow) >= fails
    return int(hits.argmax()) * 6 + 5 if hits.any() else -1


def ranks_rule(a: np.ndarray, b: np.ndarray, *, tail: bool) -> int:
    """At the end: do the minutes' tails (or means) rank higher in the canary, at 98 %? (Kayenta's Mann-Whitney)"""
    per_a, per_b = minutes(a), minutes(b)
    weights = (np.arange(a.shape[1]) >= REFERENCE_LEVELS.index(0.95) + 1) if tail else np.arange(a.shape[1])
    x = per_a @ weights / np.maximum(per_a.sum(1), 1)
    y = per_b @ weights / np.maximum(per_b.sum(1), 1)
    above = (y[:, None] > x[None, :]).sum() + 0.5 * (y[:, None] == x[None, :]).sum()
    z = (above - len(x) ** 2 / 2) / math.sqrt(len(x) ** 2 * (2 * len(x) + 1) / 12)
    # One-sided for latency; drift may go either way.
    return len(a) - 1 if (z if tail else abs(z)) > NormalDist().inv_cdf(0.99 if tail else 0.995) else -1


def ks_rule(a: np.ndarray, b: np.ndarray) -> int:
    """Kolmogorov-Smirnov at 5 %, looking every window (one-sided asymptotic bound, on the bins)."""
    x, y = np.cumsum(a, 0), np.cumsum(b, 0)
    n, m = x.sum(1), y.sum(1)
    gap = np.abs(np.cumsum(x, 1) / n[:, None] - np.cumsum(y, 1) / m[:, None]).max(1)
    return int(first_true((gap > 1.358 * np.sqrt((n + m) / (n * m)))[None, :])[0])


def psi_rule(a: np.ndarray, b: np.ndarray) -> int:
    """Population stability index above 0.1 on ten bins, looking every window from a minute on."""
    tenths = np.arange(a.shape[1]) * 10 // a.shape[1]
    x, y = (np.stack([np.cumsum(v, 0)[:, tenths == i].sum(1) for i in range(10)], 1) + 0.5 for v in (a, b))
    p, q = x / x.sum(1, keepdims=True), y / y.sum(1, keepdims=True)
    index = ((q - p) * np.log(q / p)).sum(1)
    index[:5] = 0.0
    return int(first_true((index > 0.1)[None, :])[0])


LATENCY_PEERS = {
    "p95 of the minute above 1.17x, 10 failed (Flagger)": lambda a, b: p95_rule(a, b, 10),
    "p95 of the minute above 1.17x, more than 3 failed (Argo Rollouts)": lambda a, b: p95_rule(a, b, 4),
    "Mann-Whitney on the minutes' tails after 20 (Kayenta)": lambda a, b: ranks_rule(a, b, tail=True),
    "Kolmogorov-Smirnov at 5 %, looking every 10 s": ks_rule,
}
SCORE_PEERS = {
    "Mann-Whitney on the minutes' means after 20 (Kayenta)": lambda a, b: ranks_rule(a, b, tail=False),
    "Kolmogorov-Smirnov at 5 %, looking every 10 s": ks_rule,
    "population stability index > 0.1, looking every 10 s": psi_rule,
}


def end_to_end(report: Report, runs: int) -> None:
    print("\nWhole rollouts, steps 5-10-25-50 %, alpha and beta 0.01, margin 2x, sample ratio watched")
    spec, steps = JudgeSpec(), (0.05, 0.1, 0.25, 0.5)
    twice = simulate(spec, Stream(steps=steps, canary_error_ratio=2.0), runs=2 * runs, seed=5)
    report.bar(6, "twice as bad, promoted", twice.promoted, 0.01)
    good = simulate(spec, Stream(steps=steps), runs=runs, seed=6)
    report.bar(6, "equal, rolled back", good.rolled_back, 0.01)
    report.note("  equal: promoted, and median minutes to it", f"{good.promoted:.1%}, {good.minutes[0]:.1f}")
    bad = simulate(spec, Stream(steps=steps, canary_error_ratio=10.0), runs=runs, seed=7)
    report.bar(6, f"5 % errors: mean errors served (rolled back {bad.rolled_back:.1%})", bad.canary_errors[1], 10)
    print("         The peers, five minutes a step and then promoted: twice as bad promoted, equal rolled back,")
    print("         mean errors served of a canary with 5 %")
    drawn = [ladder(runs, ratio, seed) for ratio, seed in ((2.0, 5), (1.0, 6), (10.0, 7))]
    for peer, rule in PEERS.items():
        twice_at, good_at, bad_at = (rule(counts) for counts in drawn)
        errors = np.cumsum(drawn[2].x_b, axis=1)[np.arange(runs), np.where(bad_at < 0, LADDER - 1, bad_at)]
        figures = f"{np.mean(twice_at < 0):.1%}, {np.mean(good_at >= 0):.1%}, {errors.mean():.0f}"
        report.note(f"  {peer}", figures)


LADDER = 120  # windows: four steps of five minutes


def ladder(runs: int, ratio: float, seed: int) -> Counts:
    """Poisson traffic over the steps 5-10-25-50 %, with the champion's error rate as it is."""
    rng = np.random.default_rng(seed)
    share = np.repeat([0.05, 0.1, 0.25, 0.5], LADDER // 4)
    n = rng.poisson(PER_WINDOW, (runs, LADDER))
    n_b = rng.binomial(n, share)
    return Counts(n - n_b, rng.binomial(n - n_b, CHAMPION), n_b, rng.binomial(n_b, CHAMPION * ratio))


def resuming(report: Report, runs: int) -> None:
    print("\nA judge that is killed after every window and goes on from its JSON")
    stream = Stream(steps=(0.05, 0.1, 0.25, 0.5), latency=True, scores=True, canary_error_ratio=2.0)
    metrics = (MetricSpec("errors", margin=2.0), MetricSpec("latency", "histogram", "latency", margin=1.25), SCORES)
    spec = JudgeSpec(metrics=metrics)
    different = 0
    for seed in range(runs):
        traffic, judge, saved = Traffic(stream, seed), Judge(spec), json.dumps(Judge(spec).state())
        for i in range(60):
            window = traffic.draw(stream.steps[i // 15])
            killed = Judge.from_state(spec, json.loads(saved))
            # A process that dies before it has written comes to nothing; the next one takes the same window.
            Judge.from_state(spec, json.loads(saved)).update(window)
            different += killed.update(window) != judge.update(window)
            saved = json.dumps(killed.state())
    report.bar(8, f"decisions or e-values that differ in any bit, of {60 * runs}", different, 0)


def sample_ratio(report: Report, runs: int) -> None:
    print("\nSample ratio, 12 % where 10 % was meant")
    spec = JudgeSpec(metrics=(MetricSpec("errors", margin=2.0),))
    totals = []
    for seed in range(runs):
        traffic, judge, total = Traffic(Stream(actual_share=1.2), seed), Judge(spec), 0
        for _ in range(HOUR):
            window = traffic.draw(0.1)
            total += window.champion.requests + window.canary.requests
            if judge.update(window).action is Action.HOLD:
                break
        totals.append(total)
    report.bar(
        7,
        "requests in all until it holds, median, whole judge alpha 0.01",
        float(np.median(totals)),
        4500,
    )
    for actual, what in ((0.12, "12 %"), (0.1, "as meant: false alarms within the hour")):
        rng = np.random.default_rng(12)
        n = rng.poisson(PER_WINDOW, (4 * runs, HOUR))
        n_b = rng.binomial(n, actual)
        if actual == 0.1:
            report.bar(1, "split as meant, held within the hour, this part alone", split_alarms(n, n_b), 0.01)
        for level in (0.05, 0.01):
            at = chi_square_rule(n, n_b, level)
            total = np.cumsum(n, axis=1)[np.arange(len(n)), at]
            text = f"{np.median(total[at >= 0]):.0f} requests, " if actual != 0.1 else ""
            report.note(f"  {what}: chi-square at {level:.0%}, looking every 10 s", f"{text}{np.mean(at >= 0):.1%}")


def chi_square_rule(n: np.ndarray, n_b: np.ndarray, level: float) -> np.ndarray:
    """Pearson's chi-square of the split so far, looking every window (the usual check of experiments, with peeking)."""
    total, canary = np.cumsum(n, axis=1), np.cumsum(n_b, axis=1)
    z = (canary - 0.1 * total) / np.sqrt(0.1 * 0.9 * total)
    return first_true(np.abs(z) > NormalDist().inv_cdf(1 - level / 2))


def split_alarms(n: np.ndarray, n_b: np.ndarray) -> float:
    """How often the judge's own test of the split alarms at alpha 0.01, alone, at its first start."""
    alarms = 0
    for total, canary in zip(n[:200], n_b[:200], strict=True):
        split = SampleRatio()
        split.start(0.1)
        for requests, mine in zip(total.tolist(), canary.tolist(), strict=True):
            split.update(requests - mine, mine)
        alarms += split.peak >= split.log_threshold(-math.log(0.01))
    return alarms / 200


def bursts(report: Report, runs: int) -> None:
    print("\nKnown limit: bursts private to one arm (cv 0.5 a minute), equal canary, an hour, alpha 0.05")
    for temper in (False, True):
        spec = JudgeSpec(metrics=(MetricSpec("errors"),), alpha=0.05, sample_ratio=False, temper=temper)
        equal = simulate(spec, Stream(burst_cv=0.5), runs=runs, seed=8)
        twice = simulate(spec, Stream(burst_cv=0.5, canary_error_ratio=4.0), runs=runs, seed=9)
        found = f"{equal.rolled_back:.1%} false; a 2 % canary is found in {twice.canary_requests[0]:.0f} requests"
        report.note(f"  {'tempered' if temper else 'as it is'}", found)


def cost(report: Report) -> None:
    print("\nCost: errors, latency, scores, a KPI, two guards, sample ratio")
    metrics = (
        MetricSpec("errors", margin=2.0),
        MetricSpec("latency", "histogram", "latency", margin=1.25),
        SCORES,
        MetricSpec("kpi", "rate", "kpi", direction="higher", margin=1.1),
    )
    guards = (GuardSpec("error_rate", "errors", 0.05), GuardSpec("p95", "latency", 150.0, quantile=0.95))
    judge = Judge(JudgeSpec(metrics=metrics, guards=guards))
    traffic = Traffic(Stream(even=True, latency=True, scores=True, rates={"kpi": (0.3, 0.3)}), 10)
    spent = []
    for _ in range(HOUR):
        window = traffic.draw(0.1)
        began = time.process_time()
        judge.update(window)
        spent.append(time.process_time() - began)
    report.bar(9, "judge, ms of CPU a window (median)", float(np.median(spent)) * 1000, 1.0)
    report.bar(9, "state, kB of JSON", len(json.dumps(judge.state())) / 1000, 50)


def agree() -> None:
    """The array version of the errors test is the judge's own: the same window on the same counts."""
    spec = JudgeSpec(metrics=(MetricSpec("errors"),), alpha=0.05, sample_ratio=False)
    stream = Stream(canary_error_ratio=2.0)
    for seed in range(5):
        run = simulate_rollout(spec, stream, seed)
        windows = list(_redraw(stream, seed))
        counts = Counts(
            *(
                np.array([[getattr(arm(w), name) for w in windows]])
                for arm, name in (
                    (lambda w: w.champion, "requests"),
                    (lambda w: w.champion, "errors"),
                    (lambda w: w.canary, "requests"),
                    (lambda w: w.canary, "errors"),
                )
            )
        )
        at = int(judge_rule(counts, 0.05)[0])
        expected = round(run.minutes * 6) - 1 if run.action is Action.ROLLBACK else -1
        if at != expected:
            sys.exit(f"the judge and its array version disagree: windows {expected} and {at}, seed {seed}")


def _redraw(stream: Stream, seed: int):
    traffic = Traffic(stream, seed)
    return (traffic.draw(0.1) for _ in range(HOUR))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rollouts, under a minute")
    quick = parser.parse_args().quick
    report, began = Report(), time.perf_counter()
    agree()
    false_rollbacks(report, 6000 if quick else 20_000)
    detection(report, 1500 if quick else 10_000)
    distributions(report, 150 if quick else 1000)
    end_to_end(report, 800 if quick else 4000)
    sample_ratio(report, 100 if quick else 1000)
    bursts(report, 60 if quick else 500)
    resuming(report, 3 if quick else 30)
    cost(report)
    print(f"\n{time.perf_counter() - began:.0f} s; ", end="")
    print("every bar holds" if not report.missed else f"missed: {'; '.join(report.missed)}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
