"""Texts written for this project, not taken from the catalogues: a check on everyday language."""

from __future__ import annotations

#: Language code → a sentence as someone might write it. Used for no decision in training.
EVERYDAY = {
    "ar": "ذهبت إلى السوق لشراء الخضار والفواكه الطازجة",
    "bn": "গতকাল আমি বাজার থেকে মাছ কিনেছি",
    "ca": "Ahir vam anar a la platja amb els nostres amics.",
    "cs": "Včera jsem byl s kamarádem na pivu v hospodě.",
    "da": "I går købte jeg en ny cykel til min datter.",
    "de": "Gestern bin ich mit meiner Schwester ins Kino gegangen.",
    "el": "Χθες το βράδυ φάγαμε ψάρι δίπλα στη θάλασσα.",
    "en": "The weather is lovely today, let us go for a walk.",
    "es": "Mañana vamos a la playa con los niños si no llueve.",
    "eu": "Atzo lagunekin mendira joan ginen.",
    "fa": "دیروز با دوستانم به پارک رفتیم و بستنی خوردیم",
    "fi": "Eilen satoi lunta koko päivän ja lapset olivat iloisia.",
    "fr": "Je voudrais une baguette et deux croissants, s'il vous plaît.",
    "he": "אתמול הלכתי לים עם החברים שלי",
    "hi": "कल मैं अपने दोस्त के साथ बाज़ार गया था",
    "hu": "Tegnap este a barátaimmal moziba mentünk.",
    "id": "Kemarin saya pergi ke pasar membeli ikan dan sayur.",
    "it": "Mia nonna cucina la pasta migliore di tutta la città.",
    "ja": "昨日は友達と一緒に映画を見に行きました。",
    "ka": "გუშინ მეგობრებთან ერთად კინოში წავედი",
    "ko": "어제 친구와 함께 영화를 보러 갔어요.",
    "nb": "I går gikk vi en lang tur i skogen med hunden.",
    "nl": "Mijn fiets is gisteren gestolen bij het station.",
    "pl": "Wczoraj kupiłem świeży chleb i ser na targu.",
    "pt": "Ontem à noite choveu muito e as ruas ficaram alagadas.",
    "ro": "Ieri am fost la piață și am cumpărat mere și pere.",
    "ru": "Сегодня утром я пил кофе и читал газету.",
    "sv": "Jag tycker om att läsa böcker när det regnar ute.",
    "sw": "Jana nilikwenda sokoni kununua samaki na mboga.",
    "th": "เมื่อวานฉันไปตลาดกับแม่",
    "tr": "Bu sabah kahvaltıda peynir, zeytin ve ekmek yedik.",
    "uk": "Сьогодні вранці я пив каву і читав газету.",
    "vi": "Hôm qua tôi đi chợ mua rau và cá tươi.",
    "zh": "昨天晚上我和朋友一起去吃火锅了。",
}

#: Golden cases: name, text, parameters.
GOLDEN: list[tuple[str, str, dict[str, int]]] = [
    ("German, defaults", EVERYDAY["de"], {}),
    ("French, apostrophe and accents", EVERYDAY["fr"], {"top_k": 1}),
    ("Arabic script, Persian", EVERYDAY["fa"], {"top_k": 2}),
    ("Devanagari, marks on letters", EVERYDAY["hi"], {}),
    ("Chinese, no spaces", EVERYDAY["zh"], {}),
    ("Thai, no spaces, marks", EVERYDAY["th"], {"top_k": 5}),
    ("Turkish capital dotted I", "İSTANBUL'DA YAĞMUR YAĞIYOR", {}),
    ("one word", "Guten", {}),
    (
        "markup, addresses, placeholders and digits go",
        (
            '<a href="https://example.org/x?y=1">Hej, %(name)s!</a> Skriv til test_user@example.org'
            " eller list_display {0} &amp; læs mere på www.example.dk — 12.345,67 kr 🙂"
        ),
        {},
    ),
    ("full-width letters", "Ｈｅｌｌｏ　ｗｏｒｌｄ，　ｈｏｗ　ａｒｅ　ｙｏｕ？", {}),
    ("long text is cut, here within a word", " ".join([EVERYDAY["pl"]] * 9), {}),
    ("no letters: undetermined", "12345 — 67 %", {"top_k": 5}),
    ("a script that the model does not know", "ሰላም እንዴት ነህ", {}),
]
