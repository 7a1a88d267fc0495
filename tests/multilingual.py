"""Texts in many scripts, and such as tokenizers stumble over; written for the tests."""

import random

SENTENCES = {
    "en": "The ships left the harbour before the wind turned, and nobody said a word about it.",
    "de": "Die Schiffe verließen den Hafen, bevor der Wind drehte; keiner hörte größere Klagen.",
    "fr": "Les bateaux quittèrent le port avant l’aube, et personne n’en dit mot à l’école.",
    "es": "Los barcos salieron del puerto antes del amanecer, y el niño no dijo nada. ¿Por qué?",
    "pl": "Statki opuściły port, zanim zmienił się wiatr; żółta łódź została na brzegu.",
    "tr": "Gemiler rüzgâr dönmeden limandan ayrıldı, İstanbul'da ışıklar sönmüştü.",
    "ru": "Корабли вышли из порта до рассвета, и никто не сказал об этом ни слова.",
    "el": "Τα πλοία έφυγαν από το λιμάνι πριν αλλάξει ο άνεμος.",
    "ar": "غادرت السفن الميناء قبل أن يتغير اتجاه الريح، ولم يقل أحد شيئا.",
    "he": "הספינות עזבו את הנמל לפני שהרוח השתנתה.",
    "hi": "हवा बदलने से पहले जहाज बंदरगाह से निकल गए।",
    "th": "เรือออกจากท่าก่อนที่ลมจะเปลี่ยนทิศ",
    "zh": "船在风向改变之前离开了港口，没有人说一句话。",
    "ja": "風向きが変わる前に船は港を出た。カタカナとひらがなと漢字。",
    "ko": "바람이 바뀌기 전에 배들이 항구를 떠났다.",
}
ODD = [
    " ",
    "   ",
    "\n",
    "\n\n \n",
    "  two before, two after  ",
    "tabs\tand\r\nlines\n\n\n  indented\n\t\tdeeper\n",
    "def f(x: int) -> int:\n    return {'a': x ** 2, 'b': [1, 2]}[\"a\"]  # 100%\n",
    "🙂 👩\u200d👩\u200d👧 🇩🇪 👍🏽 ❤\ufe0f",
    "e\u0301 \u00e9 ﬁ Ω \u2126 ½ ² Ⅷ ١٢٣ \u1e9b\u0323",
    "\x00\x01\x02 \x7f \x85 \xa0 \u200b \u2028 \u3000 \ufeff \ufffd",
    "1234567890 3.14159 1,000,000 12:30",
    "I'm you're he'll we've they'd it's I'M YOU'RE DON'T I'LLama you'REal it'Seven",
    "<s> </s> <unk> <0x41> <|endoftext|> [UNK] [SEP] <|im_start|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "................................ ---------------- ====",
    "ends;\n/ok ;\r\n//\n\n (x)\n",
    "camelCaseWords snake_case_words SHOUTING http://example.org/a_b?c=d&e=%20",
]


def texts(count: int = 120, seed: int = 1) -> list[str]:
    """The sentences, the odd ones, and some of random signs."""
    chooser = random.Random(seed)
    ranges = [(0x20, 0x7F), (0x20, 0x3000), (0x3000, 0xD7FF), (0x10000, 0x1FFFF), (0x0A, 0x21)]
    made = [
        "".join(
            chr(chooser.randrange(*chooser.choice(ranges))) for _ in range(chooser.randrange(1, 40))
        )
        for _ in range(count)
    ]
    return [*SENTENCES.values(), *ODD, *made]


def corpus(times: int = 40, seed: int = 2) -> list[str]:
    """Texts to learn from: words of the sentences in other orders, with numbers and spaces."""
    chooser = random.Random(seed)
    found = [*SENTENCES.values()]
    for _ in range(times):
        for sentence in SENTENCES.values():
            words = sentence.split(" ")
            chooser.shuffle(words)
            found.append(f"{' '.join(words)}  {chooser.randrange(10_000)}\n")
    return found
