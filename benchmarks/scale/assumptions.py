"""What is assumed of writers, and of machines that were not measured, with reasons."""

from dataclasses import dataclass, replace

SECONDS_A_DAY, DAYS = 86_400, 365

# Share of a day's writing by the hour: little at night, most in the evening. It adds up to 1.
HOURS = (
    *(0.015, 0.010, 0.006, 0.004, 0.004, 0.006, 0.015, 0.025),
    *(0.035, 0.045, 0.050, 0.050, 0.045, 0.045, 0.050, 0.055),
    *(0.060, 0.065, 0.070, 0.080, 0.090, 0.085, 0.060, 0.030),
)


@dataclass(frozen=True)
class Writers:
    """What writers do. Numbers without another source are guesses, there to be changed."""

    daily: float = 0.2  # of all writers, those who write on a day
    minutes: float = 40.0  # that such a writer writes on such a day
    together: float = 0.0  # at least this share writes at once: a lesson
    pause: float = 30.0  # seconds between a passage's end and the next wish: reading, typing
    tokens: float = 160.0  # of a passage: what the first model suggests
    characters: float = 4.0  # of a token
    prompt: float = 350.0  # tokens read anew where nothing of a story is remembered
    remembered: float = 0.7  # share of passages whose story the engine remembers
    typed: float = 1.0  # passages of one's own for each of a model
    typing: float = 0.5  # what one of them costs page and database, of one that a model writes
    windows: float = 3.0  # open for each one that is written in

    @property
    def busiest(self) -> float:
        """The share that writes at once in the busiest hour."""
        return max(self.together, self.daily * self.minutes / 60 * max(HOURS))

    def active(self, writers: int) -> float:
        """How many write at once in the busiest hour."""
        return writers * self.busiest

    def passages_a_year(self, writers: int, seconds: float) -> float:
        """Passages of models in a year, where each takes so many seconds."""
        a_day = writers * self.daily * self.minutes * 60
        return DAYS * a_day / (self.pause + seconds)


@dataclass(frozen=True)
class Machines:
    """What is asked of machines, and what those do that are not here."""

    first_word: float = 1.0  # seconds that 19 of 20 passages may take to their first word
    engine_load: float = 0.8  # share of its time that an engine may be busy: the rest is for chance
    page_load: float = 0.5  # of a core: above it, words wait behind each other
    core_is_worth: float = 1.0  # of the core that was measured
    page_memory: float = 4000.0  # MB of one page's process: compose.yaml's bound
    descriptors: int = 65_536  # open files of a process: what service units are given
    sqlite_load: float = 0.5  # share of the time in which SQLite's one writer may be at work
    server_cores: int = 16  # of one PostgreSQL server
    server_load: float = 0.5
    server_commits: float = 5_000.0  # a second, synced, on one NVMe disk, several to a sync
    server_sessions: int = 400  # of PostgreSQL, directly
    server_room: float = 4e12  # bytes
    sessions_a_page: int = 16  # that a page's process may have: SQLAlchemy's 5 and 10, and a claim
    proxy_bits: float = 10e9  # a second, one proxy's network
    proxy_sockets: int = 60_000  # of one proxy with one address behind it: TCP's ports


# Not measured here: tokens a second of one card for a model of GPT-2's size, 124M in bf16. Reading
# 0.25 GB of weights at the bandwidth in the card's data sheet bounds the steps a second; a third of
# that is taken, with so many writers in a step, and no step is shorter than its many small calls.
CARDS = {"L4 (300 GB/s)": (300e9, 64), "H200 (4.8 TB/s)": (4.8e12, 256)}
CARD_SHARE, CARD_WEIGHTS, CARD_STEP = 1 / 3, 0.25e9, 0.002


def card_tokens(name: str) -> float:
    """Tokens a second of a card.

    >>> card_tokens("L4 (300 GB/s)")
    25600.0
    """
    bandwidth, writers = CARDS[name]
    return min(bandwidth / CARD_WEIGHTS * CARD_SHARE, 1 / CARD_STEP) * writers


# A class that writes in the same lesson; a school or a club; a public service.
SIZES = {
    100: Writers(together=0.3),
    10_000: Writers(),
    1_000_000: Writers(),
}

# What is doubled and halved to see what matters.
VARIED = ("daily", "minutes", "pause", "tokens", "prompt", "remembered", "typed", "windows")


def varied(writers: Writers, name: str, factor: float) -> Writers:
    """The same writers with one number multiplied; a share stays below 1."""
    value = getattr(writers, name) * factor
    return replace(writers, **{name: min(value, 0.95) if name == "remembered" else value})
