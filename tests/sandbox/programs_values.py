"""Topics of the differential test: functions, and the values that they take and give."""

# ruff: noqa: E501 (lines of the programs that are drawn)
from __future__ import annotations

from .programs import Pen, topic


@topic("exceptions", "inheritance")
def errors(pen: Pen) -> tuple[str, list[str]]:
    base, child, f = (
        pen.name("AppError", "Failure"),
        pen.name("NotFound", "Bad"),
        pen.name("find", "check", "parse"),
    )
    parent = pen.pick(
        "Exception", "ValueError", "LookupError", "OSError", "AssertionError", "StopIteration"
    )
    init = pen.pick(
        "    def __init__(self, code, *rest):\n        super().__init__(code, *rest)\n        self.code = code\n",
        "    def __init__(self, code=5, **more):\n        super().__init__(f'code {code}')\n        self.code, self.more = code, more\n",
        "    code = 4\n",
    )
    text = pen.maybe("    def __str__(self):\n        return f'<{self.code}>'\n", 0.4)
    code = f"""
class {base}({parent}):
{init}{text}
class {child}({base}):
    hint = 'look again'

def {f}(x, table={{'a': 1}}):
    if x is None:
        raise {child}({pen.integer()})
    if x == 'chain':
        try:
            table['zz']
        except KeyError as error:
            raise {base}(3) from {pen.pick("error", "None", "error")}
    if x == 'context':
        try:
            int('q')
        except ValueError:
            raise {base}(4)
    if x == 'note':
        error = {base}(6)
        error.extra = [1, 2]
        error.add_note('hm')
        raise error
    if x == 'finally':
        try:
            return 1 / 0
        except ZeroDivisionError as e:
            return repr(e)
        finally:
            table['done'] = True
    if x == 'group':
        raise ExceptionGroup('many', [ValueError(1), {child}(2)])
    if x == 'stop':
        return next(iter([]))
    if x == 'exit':
        raise SystemExit(3)
    if x == 'own':
        assert table is None, 'own'
    return table[x]

def guarded{f}(x):
    try:
        return {f}(x), None
    except {base} as error:
        return None, error

kept{f} = {child}(9)
"""
    t, e = pen.word(), "error"
    words = (
        "None",
        "'chain'",
        "'context'",
        "'note'",
        "'finally'",
        "'group'",
        "'stop'",
        "'own'",
        "'a'",
        "'zz'",
        "[]",
    )
    steps = [f"{f}({x})" for x in words]
    checked = pen.chance.sample(
        [
            *(
                "str(error)",
                "error.args",
                "error.code",
                "repr(error)",
                "type(error).__name__",
                "error.hint",
            ),
            *(
                f"isinstance(error, {base})",
                f"isinstance(error, {parent})",
                "error.__cause__ is None",
            ),
            *(
                "type(error.__cause__).__name__",
                "type(error.__context__).__name__",
                "error.extra",
                "error.__notes__",
            ),
            *(
                "error.__suppress_context__",
                "[str(x) for x in getattr(error, 'exceptions', ())]",
                "error.__class__.__name__",
            ),
            *(
                "getattr(error, 'errno', 'none')",
                "getattr(error, 'value', 'none')",
                "vars(error)",
                f"error == error, {t!r}",
            ),
        ],
        5,
    )
    for x in pen.chance.sample(words, 3):
        kind = pen.pick(base, child, parent, "Exception", "KeyError", f"({base}, KeyError)")
        look = "".join(f"    seen.append({c})\n" for c in checked[: pen.chance.randrange(4)])
        steps += [
            f"!seen = []\ntry:\n    {f}({x})\nexcept {kind} as {e}:\n    seen.append('caught')\n{look}",
            "seen",
        ]
    steps += [
        *(
            f"guarded{f}(None)[1].code",
            f"guarded{f}(None)[1]",
            f"type(guarded{f}(None)[1]) is {child}",
            f"guarded{f}('a')",
        ),
        *(
            f"issubclass({child}, {parent})",
            f"{child}.__mro__[1] is {base}",
            f"kept{f}.args",
            f"str(kept{f})",
            f"kept{f} is kept{f}",
        ),
        *(
            f"isinstance(kept{f}, Exception)",
            f"!kept{f}.more = 1",
            f"kept{f}.more",
            f"{base}(1, 2).args",
            f"str({base}(7))",
        ),
        f"!try:\n    raise {child}(1)\nexcept {base} as error:\n    held = error",
        *(
            "held.args",
            f"isinstance(held, {child})",
            "held == kept" + f,
            f"{f}('a', table={{'a': [1]}})",
            f"{f}('exit')",
        ),
        f"!try:\n    raise kept{f}\nexcept Exception as error:\n    same = error is kept{f}",
        "same",
    ]
    return code, pen.some(steps, 0.4)


@topic("generators", "iteration", "closures")
def generators(pen: Pen) -> tuple[str, list[str]]:
    f, g = pen.name("count", "numbers"), pen.name("total", "average")
    code = f"""
def {f}(n, log=None):
    try:
        for i in range(n):
            got = yield i {pen.pick("* 2", "+ 1", "")}
            if got is not None and log is not None:
                log.append(got)
        return 'end'
    except {pen.pick("ValueError", "KeyError", "Exception")} as error:
        yield repr(error)
    finally:
        if log is not None:
            log.append('closed')

def {g}():
    s = 0
    while True:
        x = yield s
        if x is None:
            return s
        s += x

def outer{f}(n):
    result = yield from {f}(n)
    yield result

def ever{f}():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b

def pairs{f}(items):
    it = iter(items)
    for x in it:
        yield x, next(it, None)

class Gen{f}:
    def __init__(self, n):
        self.n = n
    def __iter__(self):
        return self
    def __next__(self):
        if self.n <= 0:
            raise StopIteration{pen.maybe("('done')")}
        self.n -= 1
        return self.n

squares{f} = (x * x for x in range(5))
def lazy{f}(items):
    return {pen.pick("map(str, items)", "filter(None, items)", "enumerate(items)", "zip(items, items)", "reversed(items)", "iter(items)")}
"""
    n, a, b = pen.integer(1, 5), pen.name("it", "gen"), pen.name("t", "tot")
    log = pen.name("log")
    steps = [
        *(
            f"list({f}({n}))",
            f"!{log} = []",
            f"!{a} = {f}({n}, {log})",
            f"next({a})",
            f"{a}.send('hi')",
            f"{log}",
        ),
        *(
            f"next({a}, 'over')",
            f"next({a}, 'over')",
            f"next({a})",
            f"{a}.throw(ValueError('v'))",
            f"!{a}.close()",
            f"{log}",
        ),
        *(
            f"!{b} = {g}()",
            f"next({b})",
            f"{b}.send({pen.integer()})",
            f"{b}.send(2)",
            f"{b}.send(None)",
            f"list(outer{f}(2))",
        ),
        *(
            f"[x for x, _ in zip(ever{f}(), range(9))]",
            f"list(itertools.islice(ever{f}(), 3, 6))",
            f"sum({f}({n}))",
        ),
        *(
            f"list(pairs{f}([1, 2, 3]))",
            f"dict(pairs{f}('abcd'))",
            f"list(Gen{f}({n}))",
            f"max(Gen{f}(3))",
            f"next(squares{f})",
        ),
        *(
            f"list(squares{f})",
            f"list(squares{f})",
            f"list(lazy{f}([1, 0, 2]))",
            f"next(lazy{f}([3]))",
            f"iter({a}) is {a}",
        ),
        *(
            f"list(pairs{f}(x for x in range(3)))",
            f"list(pairs{f}(iter([4, 5])))",
            f"list(pairs{f}(map(abs, [-1, -2])))",
        ),
        *(
            f"list(lazy{f}(range(3)))",
            f"isinstance({a}, types.GeneratorType)",
            f"hasattr({a}, 'send')",
            f"len(list({f}(0)))",
        ),
        f"!rest = iter([1, 2, 3, 4, 5])\ngot = list(itertools.islice(pairs{f}(rest), 1))",
        *(
            "got",
            "list(rest)",
            f"next({f}(0))",
            f"sorted({f}({n}), reverse=True)",
            f"3 in ever{f}()",
            f"tuple({f}({n}))",
        ),
        f"!seen = []\nfor x in {f}(9):\n    if x > 3:\n        break\n    seen.append(x)",
        *(
            "seen",
            f"any(x > 2 for x in {f}({n}))",
            f"'-'.join(map(str, {f}(3)))",
            f"[*{f}(2), *{f}(1)]",
        ),
        f"!def both():\n    r = yield from {f}(2)\n    yield r",
        "list(both())",
        f"!try:\n    it2 = Gen{f}(0)\n    next(it2)\nexcept StopIteration as stop:\n    why = stop.value",
        "why",
    ]
    return code, pen.some(
        [s.replace("types.GeneratorType", "collections.abc.Iterator") for s in steps], 0.5
    )


@topic("callbacks", "exceptions", "closures", "default arguments")
def callbacks(pen: Pen) -> tuple[str, list[str]]:
    f, bus = pen.name("apply", "run", "each"), pen.name("Bus", "Signal")
    code = f"""
import functools
def {f}(fn, *args, **kwargs):
    return fn(*args, **kwargs)

def all{f}(fn, items):
    return [fn(x) for x in items]

def compose{f}(*fns):
    def composed(x):
        for fn in {pen.pick("fns", "reversed(fns)")}:
            x = fn(x)
        return x
    return composed

def retry{f}(fn, times=3, on={pen.pick("ValueError", "Exception", "(KeyError, ValueError)")}):
    last = None
    for i in range(times):
        try:
            return fn(i)
        except on as error:
            last = error
    raise last

def safe{f}(fn):
    try:
        return fn()
    except Exception as error:
        return type(error).__name__, error.args, str(error)

def name{f}(fn):
    return fn.__name__

def deco{f}(fn):
    @functools.wraps(fn)
    def wrapper(*a, **k):
        wrapper.calls += 1
        return fn(*a, **k)
    wrapper.calls = 0
    return wrapper

def memo{f}(fn):
    cache = {{}}
    def inner(x):
        if x not in cache:
            cache[x] = fn(x)
        return cache[x]
    inner.cache = cache
    return inner

class {bus}:
    def __init__(self):
        self.handlers = []
    def on(self, fn):
        self.handlers.append(fn)
        return fn
    def off(self, fn):
        self.handlers.remove(fn)
    def emit(self, *a, **k):
        return [h(*a, **k) for h in self.handlers]
"""
    b, c, log = pen.name("bus", "sig"), pen.name("cb", "hook"), pen.name("log", "out")
    k, xs = pen.integer(), pen.integers()
    error = pen.pick("ValueError", "KeyError", "TypeError", "ZeroDivisionError")
    steps = [
        f"!{log} = []\ndef {c}(x, y={k}, *rest, z=None):\n    {log}.append((x, y, z))\n    return x",
        *(
            f"{f}({c}, 1)",
            f"{f}({c}, 1, 2, z=3)",
            f"{log}",
            f"{f}({c})",
            f"{f}(lambda v, w=2: v * w, {k}, w=3)",
        ),
        *(
            f"all{f}(lambda v: v + {k}, {xs})",
            f"all{f}(str, {xs})",
            f"all{f}(abs, {xs})",
            f"all{f}(str.upper, ['a'])",
        ),
        *(
            f"all{f}({log}.append, {xs})",
            f"{log}",
            f"compose{f}(lambda v: v + 1, lambda v: v * 2)({k})",
            f"compose{f}()(3)",
        ),
        f"!tries = []\ndef flaky(i):\n    tries.append(i)\n    if i < {pen.integer(0, 4)}:\n        raise {error}('bad', i)\n    return i",
        *(
            f"retry{f}(flaky)",
            "tries",
            f"retry{f}(flaky, times=1)",
            f"name{f}(flaky)",
            f"name{f}({c})",
            f"name{f}(len)",
        ),
        f"!def boom():\n    raise {error}('x', {k})",
        *(
            f"safe{f}(boom)",
            f"{f}(boom)",
            f"safe{f}(lambda: 3)",
            f"deco{f}({c})(5)",
            f"deco{f}({c}).__name__",
        ),
        f"!w = deco{f}(lambda v: v * 2)",
        *(
            "w(2)",
            "w(3)",
            "w.calls",
            f"!m = memo{f}({c})",
            "m(1)",
            "m(1)",
            "m.cache",
            f"len({log})",
        ),
        *(
            f"!{b} = {bus}()",
            f"{b}.on({c}) is {c}",
            f"{b}.emit(4)",
            f"!{b}.on({log}.append)",
            f"{b}.emit(9)",
            f"{log}",
        ),
        *(
            f"!{b}.off({c})",
            f"len({b}.handlers)",
            f"{b}.emit(2)",
            f"!{b}.off({log}.append)",
            f"{b}.emit(3)",
            f"{b}.off(print)",
        ),
        "!class Oops(Exception):\n    pass\ndef oops(*a):\n    error = Oops('mine', 2)\n    error.extra = 7\n    raise error",
        f"!try:\n    {f}(oops)\n    got = None\nexcept Oops as error:\n    got = error.args, error.extra",
        *(
            "got",
            f"safe{f}(oops)",
            f"{f}(oops)",
            f"{f}(sorted, {xs}, reverse=True)",
            f"{f}(dict, a=1)",
            f"{f}(int, 'q')",
        ),
        *(
            f"{f}({c}, {log}) is {log}",
            f"{f}(lambda: [1, 2]).pop()",
            f"{f}(functools.partial(pow, 2), 5)",
            f"{f}({b}.emit, 1)",
        ),
        f"!def outer(n):\n    return n if n <= 0 else n + {f}(outer, n - 1)",
        *(
            "outer(4)",
            f"{f}(max, {xs}, key=lambda v: -v)",
            f"safe{f}(lambda: {f}(boom))",
            f"callable(compose{f}(abs))",
        ),
        f"!data = {xs}\n{f}(data.sort)",
        *(
            "data",
            f"{f}(data.index, data[0])",
            f"{f}(lambda *a, **k: (a, k), 1, b=2)",
            f"{f}(iter, [1]).__next__()",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("closures", "module globals", "mutation between tests", "default arguments")
def counters(pen: Pen) -> tuple[str, list[str]]:
    g, f = pen.name("counter", "hits", "total"), pen.name("bump", "inc")
    hist, cache = pen.name("history", "events"), pen.name("cache", "memo")
    start = pen.integer(0, 9)
    code = f"""
{g} = {start}
{hist} = []
{cache} = {{}}
current{g} = None

def {f}(by=1):
    global {g}
    {g} += by
    {hist}.append({g})
    return {g}

def reset{f}():
    global {g}, {hist}
    {g} = {start}
    {pen.pick(f"{hist} = []", f"{hist}.clear()")}

def make{f}(n=0, step=1):
    def inc():
        nonlocal n
        n += step
        return n
    def get():
        return n
    return inc, get

def late{f}():
    return [lambda: i for i in range(3)]

def early{f}():
    return [lambda i=i: i for i in range(3)]

def keep{f}(k, v=None, into={cache}):
    into.setdefault(k, []).append(v)
    return into[k]

def define{f}(v):
    global defined{f}
    defined{f} = v

def choose{f}(x):
    global current{g}
    current{g} = x
    return x
"""
    a, b = pen.name("inc", "a"), pen.name("get", "b")
    steps = [
        *(
            f"{g}",
            f"{f}()",
            f"{g}",
            f"{f}({pen.integer()})",
            f"{hist}",
            f"!{f}()\nassert {g} == {hist}[-1]",
            f"len({hist})",
        ),
        *(
            f"!reset{f}()",
            f"{g}",
            f"{hist}",
            f"!{hist}.append('x')",
            f"{f}()",
            f"{hist}",
            f"!h = {hist}",
            f"!{f}()",
            "h",
            f"h is {hist}",
        ),
        *(
            f"!{a}, {b} = make{f}({pen.integer()}, 2)",
            f"{a}()",
            f"{a}()",
            f"{b}()",
            f"make{f}()[0]()",
            f"{b}()",
            f"{a}() + {b}()",
        ),
        *(
            f"[x() for x in late{f}()]",
            f"[x() for x in early{f}()]",
            f"keep{f}('a', 1)",
            f"keep{f}('a', 2)",
            f"{cache}",
            f"keep{f}('a') is {cache}['a']",
        ),
        *(
            f"!{cache}['b'] = [9]",
            f"keep{f}('b', 3)",
            f"sorted({cache})",
            f"defined{f}",
            f"!define{f}({pen.value()!r})",
            f"defined{f}",
        ),
        *(
            f"current{g}",
            f"!choose{f}([1])",
            f"current{g}",
            f"!current{g}.append(2)",
            f"choose{f}(current{g}) is current{g}",
            f"current{g}",
        ),
        f"!for _ in range(3):\n    {f}()",
        *(
            f"{g}",
            f"{g} > {start}",
            f"f'{{{g}:04d}}'",
            f"{hist}[-1] == {g}",
            f"!def now():\n    return {g}",
            "now()",
            f"!{f}(5)",
            "now()",
        ),
        *(
            f"bool({hist})",
            f"not {cache}",
            f"{hist} == []",
            f"{g} if {hist} else 'none'",
            f"({g}, {f}(), {g})",
            f"{f}.__name__",
        ),
    ]
    return code, pen.some(steps, 0.6)


@topic("aliasing", "containers", "nested data", "mutation between tests")
def aliasing(pen: Pen) -> tuple[str, list[str]]:
    f, keeper = pen.name("touch", "change", "fill"), pen.name("Keeper", "Holder")
    body = pen.pick(
        "xs.append(v)", "xs[0] = v", "xs.insert(0, v)", "xs += [v]", "xs.sort(key=str)", "xs[:] = xs[::-1]", "xs = xs + [v]", "del xs[0]", "xs.extend(xs)",
    )  # fmt: skip
    code = f"""
class {keeper}:
    def __init__(self, items):
        self.items = items
        self.by = {{}}
    def add(self, k, v):
        self.by.setdefault(k, self.items).append(v)
        return self
    def view(self):
        return {pen.pick("self.items", "list(self.items)", "tuple(self.items)", "(self.items, self.by)")}
    def swap(self, other):
        self.items, other.items = other.items, self.items

def {f}(xs, v):
    {body}
    return {pen.pick("xs", "v", "None", "[xs, xs]")}

def same{f}(x):
    return x

def deep{f}(d, path, v):
    for k in path[:-1]:
        d = d.setdefault(k, {{}})
    d[path[-1]] = v
    return d

def part{f}(d):
    return {pen.pick("d['a']", "d.setdefault('n', [])", "[d, d['a']]", "{'copy': d['a']}")}

def grid{f}(n, shared):
    row = [0] * n
    return [row] * n if shared else [[0] * n for _ in range(n)]

def mark{f}(s, d, b, q):
    s.add({pen.integer()})
    d.update(z=1)
    b.extend(b'!')
    q.appendleft(0)

stored{f} = []
def store{f}(x):
    stored{f}.append(x)
    return len(stored{f})
"""
    a, b, k = pen.name("xs", "a"), pen.name("ys", "b"), pen.name("k", "kp")
    v, n = pen.value(1), pen.integers()
    steps = [
        *(
            f"!{a} = {n}",
            f"!{b} = {a}",
            f"{f}({a}, {v!r})",
            f"{a}",
            f"{b}",
            f"{a} is {b}",
            f"same{f}({a}) is {a}",
            f"same{f}({a}) == {b}",
        ),
        *(
            f"!{k} = {keeper}({a})",
            f"!{a}.append('late')",
            f"{k}.items",
            f"{k}.items is {a}",
            f"{k}.add('q', 5) is {k}",
            f"{a}",
        ),
        *(
            f"{k}.by",
            f"{k}.view()",
            f"{k}.view() is {k}.view()",
            f"!{k}.items.pop()",
            f"len({a})",
            f"{k}.by.get('q') is {a}",
        ),
        *(
            "!d = {'a': [1], 'n': {}}",
            f"part{f}(d)",
            f"!p = part{f}(d)",
            "!d['a'].append(2)",
            "p",
            "d",
            f"deep{f}(d, ['n', 'm', 'o'], {v!r})",
            "d",
        ),
        *(
            f"deep{f}(d, ['z'], d) is d",
            "d['n']",
            f"!g = grid{f}(2, {pen.chance.random() < 0.5})",
            "!g[0][0] = 7",
            "g",
            "g[0] is g[1]",
            f"same{f}(g)[1] is g[1]",
        ),
        *(
            f"store{f}({a})",
            f"!{a}.append({pen.integer()})",
            f"stored{f}[-1]",
            f"stored{f}[0] is {a}",
            f"store{f}((1, {a}))",
            f"stored{f}[-1]",
        ),
        f"!s, m, y, q = set(), {{}}, bytearray(b'a'), collections.deque([1], maxlen=2)\nmark{f}(s, m, y, q)",
        *(
            "s",
            "m",
            "y",
            "q",
            "(s, m)",
            f"same{f}((1, {a}))[1] is {a}",
            f"!t = ({a}, [2])",
            f"{f}(t[0], 8)",
            "t",
            f"same{f}(t)",
        ),
        *(
            f"!k2 = {keeper}([0])\n{k}.swap(k2)",
            f"{k}.items",
            f"k2.items is {a}",
            f"[{a}, {a}] == same{f}([{a}, {a}])",
            f"!l = same{f}([{a}, {a}])",
            "l[0] is l[1]",
        ),
        *(
            "!e = []\ne.append(e)",
            f"same{f}(e) is e",
            f"same{f}(e)[0] is e",
            f"{f}({a}, 1) if {a} else 0",
            f"!{a} = []",
            f"{b}",
            f"{k}.items == {a}",
        ),
        *(
            "!c = {}\nc['self'] = c",
            f"same{f}(c)['self'] is c",
            f"copy.deepcopy({k}).items is {k}.items",
            f"copy.copy({k}).items is {k}.items",
        ),
    ]
    return code, pen.some(steps, 0.55)


@topic("numbers", "string formatting")
def numbers(pen: Pen) -> tuple[str, list[str]]:
    f = pen.name("calc", "num", "math_of")
    code = f"""
from fractions import Fraction
from decimal import Decimal, getcontext
import math
import operator

def {f}(x, y):
    return x {pen.pick("+", "*", "-", "/", "//", "%", "**")} y

def all{f}(x):
    return {{'int': int(x), 'float': float(x), 'frac': Fraction(x).limit_denominator(9), 'dec': Decimal(str(x)), 'c': complex(x)}}

def kinds{f}(x):
    return [type(v) for v in (x, float(x), Fraction(1, 3), Decimal(2), 1j, True, None)]

def pick{f}(kind):
    return {{'i': 10 ** 30, 'f': 0.1 + 0.2, 'F': Fraction(6, 8), 'D': Decimal('1.10'), 'c': 1 + 2j, 'b': True,
             'nan': math.nan, 'inf': -math.inf, 'z': -0.0, 't': (1, 2.0), 'r': range(2, 9, 3), 's': slice(1, 5)}}[kind]

def table{f}(op):
    return {{'add': operator.add, 'mul': operator.mul, 'neg': operator.neg}}[op]

def fmt{f}(x):
    return f'{{x:08.3f}}|{{x:e}}|{{x:+}}|{{x!r}}'

def digits{f}(n):
    return divmod(n, 10) + (bin(n), hex(n), n.bit_length(), round(n, -1), n.to_bytes(16, 'big', signed=True))
"""
    x, y = pen.number(), pen.number()
    steps = [
        *(
            "!from fractions import Fraction\nfrom decimal import Decimal",
            f"{f}({x}, {y})",
            f"{f}(Fraction(1, 3), 2)",
            f"{f}(Decimal('1.5'), 2)",
        ),
        *(
            f"all{f}({x})",
            f"all{f}({x})['frac'] == Fraction({x}).limit_denominator(9)",
            f"kinds{f}({x})",
            f"kinds{f}(1)[2] is Fraction",
            f"pick{f}('F') + 1",
        ),
        *(
            f"pick{f}({pen.pick('i', 'f', 'F', 'D', 'c', 'b', 't', 'r')!r})",
            f"type(pick{f}({pen.pick('i', 'F', 'D', 'b', 's')!r})).__name__",
            f"pick{f}('i') % 7",
        ),
        *(
            f"math.isnan(pick{f}('nan'))",
            f"pick{f}('inf') < 0",
            f"math.copysign(1, pick{f}('z'))",
            f"pick{f}('D') == Decimal('1.1')",
            f"str(pick{f}('D'))",
        ),
        *(
            f"pick{f}('b') is True",
            f"pick{f}('b') + 1",
            f"isinstance(pick{f}('b'), int)",
            f"pick{f}('f') == 0.3",
            f"math.isclose(pick{f}('f'), 0.3)",
            f"round(pick{f}('f'), 2)",
        ),
        *(
            f"list(pick{f}('r'))",
            f"pick{f}('r')[1]",
            f"[0, 1, 2, 3, 4][pick{f}('s')]",
            f"table{f}('add')(2, 3)",
            f"table{f}('neg')(2)",
            f"fmt{f}({x})",
            f"digits{f}({pen.integer()})",
        ),
        *(
            f"{f}(1, 0)",
            f"{f}('a', 2)",
            f"{f}([1], 2)",
            f"{f}(2, 0.5)",
            f"{f}(1j, 2)",
            f"{f}(True, {x})",
            f"pick{f}('c').imag",
            f"abs(pick{f}('c'))",
            f"int(pick{f}('f') * 10)",
        ),
        *(
            f"{{pick{f}('F'): 1}}[0.75]",
            f"sorted([pick{f}('F'), pick{f}('D'), 1])[0]",
            f"sum(map(Fraction, [1, 2]), pick{f}('F'))",
            f"abs({f}({x}, {y}) - {f}({x}, {y})) < 1e-9",
        ),
        *(
            f"hash(pick{f}('F')) == hash(0.75)",
            f"max({f}({x}, 2), 3)",
            f"f'{{pick{f}(chr(70))}}'",
            f"pick{f}('x')",
            f"str(pick{f}('i'))[:3]",
            f"-pick{f}('D')",
            f"pick{f}('t') < (1, 3)",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("numbers", "arrays", "aliasing")
def arrays(pen: Pen) -> tuple[str, list[str]]:
    f = pen.name("arr", "matrix")
    code = f"""
import numpy as np
import array
def {f}(n):
    return np.{pen.pick("arange(n) * 1.5", "zeros(n)", "ones((n, 2), dtype=int)", "array([True] * n)", "arange(n, dtype=np.float32)")}

def stat{f}(a):
    return {{'sum': a.sum(), 'max': a.max(), 'dtype': str(a.dtype), 'first': a[0]}}

def into{f}(a):
    a {pen.pick("+= 1", "*= 2", "[0] = 5", "[...] = a[::-1].copy()")}
    return a

def plain{f}(kind):
    return {{'d': np.datetime64('2024-02-03'), 't': np.timedelta64(5, 'D'), 'i': np.int64(7), 'f': np.float32(0.5), 'b': np.bool_(True),
             's': np.array(['a', 'bc']), 'o': np.array([1, 'a', None], dtype=object), 'c': np.array([1 + 2j]), 'u': np.uint8(250),
             'D': np.array(['2024-01-01', '2024-03-01'], dtype='datetime64[D]'), 'A': array.array('i', [1, 2]), 'B': array.array('d', [0.5])}}[kind]

def grow{f}(a):
    a.append(3)
    return len(a)
"""
    n, a = pen.integer(1, 5), pen.name("a", "m")
    kind = pen.pick("d", "t", "i", "f", "b", "s", "o", "c", "u", "D", "A", "B")
    steps = [
        *(
            "!import numpy as np\nimport array",
            f"!{a} = {f}({n})",
            f"{a}.tolist()",
            f"{a}.shape",
            f"str({a}.dtype)",
            f"stat{f}({a})['sum'] == {a}.sum()",
            f"stat{f}({a})['dtype']",
        ),
        *(
            f"into{f}({a}) is {a}",
            f"{a}.tolist()",
            f"(into{f}({a}) == {a}).all()",
            f"np.allclose({f}({n}), {a})",
            f"len({a})",
            f"float({a}.mean())",
            f"{a}.sum() == {a}.sum()",
        ),
        *(
            f"plain{f}({kind!r})",
            f"str(plain{f}({kind!r}))",
            f"type(plain{f}({kind!r})).__name__",
            f"repr(plain{f}({kind!r}))",
            f"plain{f}('i') + 1",
            f"plain{f}('i') == 7",
            f"plain{f}('f') * 2",
        ),
        *(
            f"plain{f}('b') is True",
            f"bool(plain{f}('b'))",
            f"plain{f}('d') + plain{f}('t') == np.datetime64('2024-02-08')",
            f"plain{f}('s').tolist()",
            f"plain{f}('o').tolist()",
        ),
        *(
            f"plain{f}('A') == array.array('i', [1, 2])",
            f"!r = plain{f}('A')",
            f"grow{f}(r)",
            "r.tolist()",
            f"list(plain{f}('B'))",
            f"plain{f}('D').max() > plain{f}('d')",
            f"isinstance(plain{f}('i'), int)",
        ),
        *(
            f"{{plain{f}('i'): 1}}[7]",
            f"range(9)[plain{f}('i')]",
            f"f'{{plain{f}(chr(102)):.2f}}'",
            f"np.array_equal({f}(2), {f}(2))",
            f"{f}({n})[0] == {f}({n})[0]",
            f"plain{f}('c')[0]",
            f"{f}('x')",
            f"{a}[99]",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("dates", "sorting", "string formatting")
def dates(pen: Pen) -> tuple[str, list[str]]:
    f, style = (
        pen.name("day", "when"),
        pen.pick(
            "import datetime as dt",
            "import datetime as dt",
            "from datetime import date, datetime, timedelta\nimport datetime as dt",
        ),
    )
    y, m, d = (
        pen.chance.randrange(1990, 2030),
        pen.chance.randrange(1, 13),
        pen.chance.randrange(1, 28),
    )
    code = f"""
{style}
def {f}(y={y}, m={m}, d={d}):
    return dt.date(y, m, d)

def at{f}(h, zone=None):
    tz = {{'utc': dt.timezone.utc, 'est': dt.timezone(dt.timedelta(hours=-5)), 'odd': dt.timezone(dt.timedelta(minutes=90), 'ODD'), None: None}}[zone]
    return dt.datetime({y}, {m}, {d}, h, 30, tzinfo=tz)

def span{f}(a, b):
    return b - a

def next{f}(a, days=1):
    return a + dt.timedelta(days=days)

def week{f}(dates):
    return sorted(dates, key=lambda x: x.{pen.pick("weekday()", "isoformat()", "day")})

def parse{f}(text):
    return dt.datetime.strptime(text, '%Y-%m-%d %H:%M')

class Event{f}:
    def __init__(self, when, length=dt.timedelta(minutes={pen.chance.randrange(1, 90)})):
        self.when, self.length = when, length
    @property
    def end(self):
        return self.when + self.length
    def __lt__(self, other):
        return self.when < other.when
    def overlaps(self, other):
        return self.when < other.end and other.when < self.end
"""
    ref, D, TD = (
        ("datetime.datetime", "datetime.date", "datetime.timedelta")
        if "from" not in style
        else ("datetime", "date", "timedelta")
    )
    h, e, g = pen.integer(0, 20), pen.name("e", "ev"), pen.name("g", "other")
    steps = [
        *(
            f"{f}()",
            f"{f}() == {D}({y}, {m}, {d})",
            f"{f}().isoformat()",
            f"{f}().strftime('%d/%m/%y %j')",
            f"next{f}({f}())",
            f"next{f}({f}(), {pen.integer()})",
            f"{f}(2023, 2, 30)",
        ),
        *(
            f"at{f}({h % 20})",
            f"at{f}(3, 'utc')",
            f"at{f}(3, 'est')",
            f"at{f}(3, 'odd').tzname()",
            f"at{f}(3, 'utc') == at{f}(3, 'est')",
            f"at{f}(3, 'utc') < at{f}(3, 'est')",
            f"at{f}(3) < at{f}(3, 'utc')",
        ),
        *(
            f"span{f}({D}(2020, 1, 1), {f}())",
            f"span{f}(at{f}(1), at{f}(4)).total_seconds()",
            f"span{f}({f}(), {f}()) == {TD}(0)",
            f"week{f}([{f}(), {D}(2021, 5, 6)])",
            f"type({f}()).__name__",
        ),
        *(
            f"parse{f}('2022-03-04 05:06')",
            f"parse{f}('bad')",
            f"!{e} = Event{f}({ref}(2022, 1, 1, {h % 20}))",
            f"{e}.end",
            f"{e}.end - {e}.when == {e}.length",
            f"{e}.length.seconds",
            f"!{g} = Event{f}({ref}(2022, 1, 1, 5), {TD}(hours=3))",
        ),
        *(
            f"{e} < {g}",
            f"{e}.overlaps({g})",
            f"sorted([{e}, {g}])[0].when",
            f"f'{{{e}.when:%H:%M}}'",
            f"!{e}.when = {e}.end",
            f"{e}.when.hour",
            f"{e}.when.date() in {{{D}(2022, 1, 1)}}",
            f"min([{g}.end, {e}.end])",
        ),
        *(
            f"str({f}())",
            f"repr(next{f}({f}()))",
            f"{f}() + {TD}(1) == next{f}({f}())",
            f"{f}().weekday()",
            f"isinstance({f}(), {D})",
            f"{{{f}(): 1}}[{D}({y}, {m}, {d})]",
            f"at{f}(1, 'est').utcoffset()",
            f"at{f}(1, 'nix')",
        ),
        *(
            f"at{f}(2, 'utc').isoformat()",
            f"at{f}(2, 'est').astimezone(at{f}(1, 'utc').tzinfo)",
            f"{f}().replace(year=2000)",
            f"{e}.when == {g}.when",
            f"max({f}(), {D}(2010, 1, 1))",
            f"span{f}({f}(), {D}(2020, 1, 1)).days",
        ),
    ]
    return code, pen.some(steps, 0.45)


@topic("string formatting", "sorting", "nested data", "containers")
def texts(pen: Pen) -> tuple[str, list[str]]:
    f = pen.name("word", "text")
    code = f"""
import re, collections, json, string
from collections import Counter, defaultdict, deque, OrderedDict

def {f}(s):
    return {pen.pick("s.split()", "re.findall(r'[a-z]+', s)", "sorted(set(s))", "Counter(s)", "s.title()", "s.encode()", "{c: s.count(c) for c in s}")}

def group{f}(words):
    out = {pen.pick("defaultdict(list)", "{}", "OrderedDict()")}
    for w in words:
        out.setdefault(len(w), []).append(w)
    return out

def rank{f}(words):
    return sorted(words, key=lambda w: ({pen.pick("-len(w), w", "w[::-1]", "w.count('a'), w")}))

def find{f}(p, s):
    return re.search(p, s)

def show{f}(**k):
    return ', '.join(f'{{a}}={{b!r:>6}}' for a, b in sorted(k.items()))

def tree{f}(n):
    return {{'v': n, 'kids': [tree{f}(i) for i in range(n)], 'meta': ({pen.value(1)!r}, {{n}}, None)}}

def flat{f}(x):
    return [z for y in x for z in (flat{f}(y) if isinstance(y, (list, tuple)) else [y])]

def json{f}(x):
    return json.loads(json.dumps(x, sort_keys=True))

def window{f}(xs, n):
    q = deque(maxlen=n)
    for x in xs:
        q.append(x)
    return q
"""
    w, s = pen.words(4), " ".join(pen.words(3))
    steps = [
        *(
            f"{f}({s!r})",
            f"{f}('')",
            f"len({f}({s!r}))",
            f"type({f}('a b')).__name__",
            f"group{f}({w})",
            f"group{f}({w}) == {{len(x): [x] for x in {w}}}",
            f"sorted(group{f}({w}))",
        ),
        *(
            f"group{f}({w}).get(99)",
            f"group{f}({w})[99]",
            f"isinstance(group{f}([]), dict)",
            f"rank{f}({w})",
            f"rank{f}({w})[0]",
            f"find{f}('a+', {s!r})",
            f"find{f}('a', {s!r}).group()",
            f"find{f}('Q', {s!r}) is None",
        ),
        *(
            f"find{f}('(a)(.)', {s!r}).groups()",
            f"find{f}('a', {s!r}).span()",
            f"bool(find{f}('a', {s!r}))",
            f"show{f}(a=1, b='x')",
            f"show{f}()",
            f"tree{f}(2)",
            f"tree{f}(1)['kids'][0]['v']",
            f"tree{f}(0)",
        ),
        *(
            f"flat{f}([1, [2, (3, [4])], 'ab'])",
            f"flat{f}(5)",
            f"json{f}({{'b': [1, None, True], 'a': 2.5}})",
            f"json{f}({{1}})",
            f"window{f}([1, 2, 3], 2)",
            f"window{f}('abc', 2)[0]",
            f"window{f}([], 3).maxlen",
        ),
        *(
            f"list(window{f}(range(9), 4))",
            f"{f}({s!r}) == {f}({s!r})",
            f"{f}(5)",
            f"f'{{{f}(chr(97))}}'",
            f"max(rank{f}({w}), key=len)",
            f"{{**group{f}({w})}}",
            f"dict(group{f}(['a', 'b', 'cc']))",
            f"'a' in {f}({s!r})",
        ),
        *(
            f"rank{f}({w}) is rank{f}({w})",
            f"sum(len(x) for x in {f}({s!r}))",
            f"list(map(len, rank{f}({w})))",
            f"{s!r}.replace('a', str(len({f}('a'))))",
            f"[*{f}({s!r})][:2]",
            f"reversed(rank{f}({w})).__class__.__name__",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("context managers", "exceptions", "generators")
def managers(pen: Pen) -> tuple[str, list[str]]:
    name, f = pen.name("Session", "Guard"), pen.name("opened", "managed")
    swallow = pen.pick("ValueError", "KeyError", "ZeroDivisionError", "None", "Exception")
    code = f"""
import contextlib
class {name}:
    log = []
    def __init__(self, n):
        self.n = n
        self.error = None
    def __enter__(self):
        self.log.append(('in', self.n))
        return {pen.pick("self", "self.n", "[self.n]")}
    def __exit__(self, kind, error, trace):
        self.log.append(('out', self.n, kind.__name__ if kind else None, str(error)))
        self.error = error
        return kind is {swallow}

@contextlib.contextmanager
def {f}(log, n=1):
    log.append(n)
    try:
        yield n * 2
    except {swallow if swallow != "None" else "LookupError"} as error:
        log.append(repr(error))
    finally:
        log.append(-n)

def fail{f}(kind, *args):
    raise kind(*args)
"""
    s, log = pen.name("s", "g"), pen.name("log")
    error = pen.pick("ValueError('v')", "KeyError('k')", "ZeroDivisionError", "RuntimeError(1, 2)")
    raising = pen.pick(f"raise {error}", f"fail{f}(ValueError, 'w')", "1 / 0", "{}['q']")
    steps = [
        f"!{log}, {s} = [], {name}({pen.integer()})",
        f"!with {s} as x:\n    {log}.append(x)",
        *(
            f"{s}.log",
            f"{log}",
            f"{s}.error is None",
            f"!with {s}:\n    {raising}",
            f"{s}.log[-1]",
            f"type({s}.error).__name__",
            f"{s}.error and {s}.error.args",
        ),
        f"!with {f}({log}, 3) as y:\n    {log}.append(y)",
        *(
            f"{log}",
            f"!with {f}({log}):\n    {raising}",
            f"{log}",
            f"{s}.__enter__()",
            f"{s}.__exit__(None, None, None)",
        ),
        f"!with {name}(1), {name}(2):\n    pass",
        *(
            f"{name}.log[-2:]",
            f"len({s}.log)",
            f"!with contextlib.ExitStack() as stack:\n    stack.enter_context({s})\n    stack.enter_context({f}({log}))",
            f"{log}",
        ),
        f"!try:\n    with {s}:\n        raise KeyError('inner')\nexcept KeyError as error:\n    {log}.append(error.args)",
        *(
            f"{log}",
            f"fail{f}(KeyError, 'z')",
            f"fail{f}(IndexError)",
            f"!with {f}({log}):\n    with {s}:\n        {log}.append('deep')",
            f"{log}[-3:]",
        ),
        f"!def inside():\n    with {f}({log}) as z:\n        return z",
        *(
            "inside()",
            f"{log}[-1]",
            f"!with contextlib.suppress(ValueError):\n    fail{f}(ValueError)",
            f"hasattr({s}, '__exit__')",
        ),
    ]
    return code, ["!import contextlib", *pen.some(steps, 0.7)]


@topic("sorting", "functions", "recursion", "nested data")
def functions(pen: Pen) -> tuple[str, list[str]]:
    f = pen.name("solve", "work", "func")
    body = pen.pick(
        "return sorted(x for x in xs if x > k)", "return [x * k for x in xs]", "return {x: xs.count(x) for x in xs}", "return max(xs) - min(xs)",
        "return tuple(xs[::-1])", "return sum(xs) / len(xs)", "return set(xs) & {k, 1, 2}", "return xs[k]", "xs.sort()\n    return xs", "return None if k < 0 else xs[:k]",
    )  # fmt: skip
    code = f"""
import functools, heapq, bisect, itertools
def {f}(xs, k={pen.integer(0, 5)}):
    {body}

@functools.lru_cache(maxsize=None)
def fib{f}(n):
    return n if n < 2 else fib{f}(n - 1) + fib{f}(n - 2)

def perms{f}(xs):
    if len(xs) < 2:
        return [list(xs)]
    return [[x] + p for i, x in enumerate(xs) for p in perms{f}(xs[:i] + xs[i + 1:])]

def path{f}(graph, a, b, seen=()):
    if a == b:
        return [a]
    for n in graph.get(a, []):
        if n not in seen:
            rest = path{f}(graph, n, b, (*seen, a))
            if rest:
                return [a, *rest]
    return None

def sort{f}(rows, *keys, reverse=False):
    return sorted(rows, key=lambda r: tuple(r[k] for k in keys), reverse=reverse)

def merge{f}(*ds, **more):
    out = {{}}
    for d in (*ds, more):
        out |= d
    return out

def matrix{f}(a, b):
    return [[sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a]
"""
    xs, k = pen.integers(), pen.integer(0, 5)
    rows = [{"a": pen.integer(), "b": pen.word()} for _ in range(3)]
    steps = [
        *(
            f"{f}({xs})",
            f"{f}({xs}, {k})",
            f"{f}([])",
            f"{f}({xs}, k=1)",
            f"{f}({xs}, q=1)",
            f"type({f}({xs})).__name__",
            f"fib{f}({pen.integer(0, 30)})",
            f"fib{f}.cache_info().hits",
        ),
        *(
            f"perms{f}([1, 2, 3])[2]",
            f"len(perms{f}('abcd'))",
            f"path{f}({{1: [2, 3], 2: [4], 3: [4]}}, 1, 4)",
            f"path{f}({{}}, 1, 2)",
            f"sort{f}({rows}, 'b')",
            f"sort{f}({rows}, 'a', 'b', reverse=True)[0]",
        ),
        *(
            f"sort{f}({rows}, 'c')",
            f"merge{f}({{'a': 1}}, {{'b': 2}}, c=3)",
            f"merge{f}()",
            f"matrix{f}([[1, 2], [3, 4]], [[0, 1], [1, 0]])",
            f"matrix{f}([], [])",
            f"{f}({xs}) == {f}({xs})",
            f"{f}.__defaults__",
        ),
        *(
            f"sorted({xs}) == sorted(perms{f}({xs[:3]})[0])",
            f"[{f}({xs}, i) for i in range(2)]",
            f"{{i: fib{f}(i) for i in range(5)}}",
            f"all(fib{f}(i) == fib{f}(i - 1) + fib{f}(i - 2) for i in range(2, 9))",
            f"list(map(fib{f}, range(4)))",
        ),
        *(
            f"{f}('abc', 1)",
            f"{f}(5)",
            f"sorted(map(fib{f}, {[abs(x) for x in xs]}), reverse=True)",
            f"max({xs}, key=fib{f}) if min({xs}) >= 0 else 0",
            f"functools.reduce(matrix{f}, [[[2]], [[3]], [[4]]])",
            f"{f}.__name__",
        ),
        *(
            f"fib{f}(10) if {k} else 0",
            f"(fib{f}(3), fib{f}(4))",
            f"not {f}({xs}, 2)",
            f"f'{{fib{f}(9):>5}}'",
            f"fib{f}('x')",
            f"path{f}({{1: [1]}}, 1, 9) or 'none'",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("library values", "identity")
def library(pen: Pen) -> tuple[str, list[str]]:
    f = pen.name("lib", "thing")
    code = f"""
import pathlib, uuid, io, itertools, functools, types, re, collections, random, string, textwrap, decimal
def {f}(kind):
    return {{
        'path': pathlib.PurePosixPath('/a/b') / 'c.txt', 'uuid': uuid.UUID(int=77), 'io': io.StringIO('one\\ntwo'), 'type': int,
        'types': [str, ValueError, dict, type(None)], 'error': KeyError('k', 1), 'none': None, 'dots': ..., 'not': NotImplemented,
        'ns': types.SimpleNamespace(a=1, b=[2]), 'part': functools.partial(max, key=lambda x: -x), 'chain': collections.ChainMap({{'a': 1}}, {{'b': 2}}),
        'rand': random.Random(5), 'view': {{'a': 1}}.keys(), 'items': {{'a': 1}}.items(), 'fro': frozenset([1, 2]), 'bytes': b'a\\x00', 'ba': bytearray(b'q'),
        'mem': memoryview(b'abc'), 'obj': object(), 'fn': len, 'method': [3, 1].append, 'proxy': types.MappingProxyType({{'z': 1}}), 'range': range(3),
        'template': string.Template('$a!'), 'cycle': itertools.cycle('ab'), 'count': itertools.count(3), 'od': collections.OrderedDict(b=1, a=2),
    }}[kind]

sentinel{f} = object()
def default{f}(x=sentinel{f}):
    return x is sentinel{f}

def read{f}(stream):
    return [line.strip() for line in stream]

def kind{f}(x):
    return type(x)

def is{f}(x, t):
    return isinstance(x, t)
"""
    kinds = pen.chance.sample(
        ["path", "uuid", "io", "type", "types", "error", "none", "dots", "ns", "chain", "view", "items", "fro", "bytes", "ba", "mem", "fn", "proxy", "range", "od"], 6,
    )  # fmt: skip
    steps = [f"{f}({k!r})" for k in kinds[:3]] + [f"str({f}({k!r}))" for k in kinds[3:5]]
    steps += [f"type({f}({kinds[5]!r})).__name__", "!import pathlib, uuid"]
    steps += [
        *(
            f"{f}('path') == pathlib.PurePosixPath('/a/b/c.txt')",
            f"{f}('path').name",
            f"{f}('path').parent.parts",
            f"{f}('uuid') == uuid.UUID(int=77)",
            f"{f}('uuid').hex[-2:]",
            f"{f}('io').read()",
            f"read{f}({f}('io'))",
        ),
        *(
            f"{f}('type') is int",
            f"{f}('type')('7')",
            f"{f}('types') == [str, ValueError, dict, type(None)]",
            f"{f}('error').args",
            f"type({f}('error')) is KeyError",
            f"isinstance({f}('error'), LookupError)",
            f"{f}('dots') is ...",
        ),
        *(
            f"{f}('ns').a",
            f"{f}('ns')",
            f"{f}('ns') == {f}('ns')",
            f"{f}('part')(1, 5, 3)",
            f"{f}('chain')['b']",
            f"dict({f}('chain'))",
            f"len({f}('chain'))",
            f"{f}('rand').randint(1, 100)",
            f"{f}('view') == {{'a'}}",
            f"list({f}('items'))",
        ),
        *(
            f"{f}('fro') == {{1, 2}}",
            f"{f}('fro') | {{3}}",
            f"{f}('bytes').hex()",
            f"{f}('ba')",
            f"bytes({f}('mem'))",
            f"{f}('mem')[1]",
            f"{f}('obj') == {f}('obj')",
            f"{f}('fn')([1])",
            f"{f}('proxy')['z']",
            f"{f}('range') == range(3)",
        ),
        *(
            f"{f}('template').substitute(a=4)",
            f"next({f}('cycle'))",
            f"list(itertools.islice({f}('count'), 2))",
            f"list({f}('od').items())",
            f"default{f}()",
            f"default{f}(3)",
            f"default{f}(sentinel{f})",
            f"sentinel{f} is sentinel{f}",
            f"{f}('no')",
        ),
        *(
            f"kind{f}(3) is int",
            f"kind{f}([1]) is list",
            f"kind{f}(None) is type(None)",
            f"is{f}(3, int)",
            f"is{f}('a', (int, str))",
            f"is{f}([], list)",
            f"kind{f}(ValueError('x')) is ValueError",
            f"is{f}(KeyError(), LookupError)",
        ),
        *(
            "!mark = object()",
            f"kind{f}(mark) is object",
            f"!od = {f}('od')\nod.move_to_end('b')",
            "list(od)",
            f"is{f}(collections.Counter('aa'), dict)",
            f"kind{f}(datetime.date(2020, 1, 1)).__name__",
            f"kind{f}(1.5).__name__",
        ),
        *(
            f"is{f}(lambda: 0, type(len))",
            f"kind{f}(kind{f}).__name__",
            f"{f}('method')(4)",
            f"{f}('not') is NotImplemented",
            f"hash({f}('path')) == hash({f}('path'))",
            f"{f}('path') < pathlib.PurePosixPath('/b')",
            f"{f}('uuid') in {{{f}('uuid')}}",
        ),
    ]
    return code, pen.some(steps, 0.4)
