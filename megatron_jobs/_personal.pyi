AT_SIGN: int
KEY_BLOCK: int
TOKEN: int
DOTTED: int
COLONS: int
LETTERED: int
SEVEN: int
NINE: int
ELEVEN: int
THIRTEEN: int
PHONE_WORD: int
ID_WORD: int
SECRET_WORD: int

def find_traces(text: str) -> list[tuple[int, int, int]]: ...
