"""Lines as they stand in mails, pages, logs and code, with personal data marked {kind:value}.

Numbers are published examples or of ranges kept for fiction; lines of `INNOCENT_LINES` hold none.
"""

import re

LINES = """
Please send the draft to {email:anna.lindqvist@uni-lund.example} before Friday.
From: "Okoro, Chidi" <{email:chidi.okoro+lists@mail.example.ng}>
Kontakt: {email:info@baeckerei-mueller.example}, Tel. {phone:030 901820}
mailto:{email:press@museum.example.fr}?subject=Visit
Contact {email:J.Smith@ACME-WIDGETS.EXAMPLE} or {email:support@acme-widgets.example}.
author_email='{email:dev_team@project.example.io}',
To: {email:a@b.example.org};{email:c@d.example.org}
({email:o.hara99@students.example.edu})
Reply-To: {email:no-reply@news.letters.example.com}
e-mail:{email:pierre.dupont@exemple.fr}
Signed-off-by: Mei Ling <{email:mei.ling@kernel.example.org}>
You can reach me under {email:françois@exemple.fr}.
Write "{email:sales@shop.example.co.uk}" on the form.
{email:first.middle.last@dept.company.example.com.au} wrote:
Call us on {phone:+44 20 7946 0018} between nine and five.
Call {phone:(212) 555-0147} and ask for Ms. Reyes.
My number is {phone:555-867-5309} but I never answer.
Mobile {phone:07700 900461}, office {phone:0191 498 0027}
Tel: {phone:+49 30 23125 123} Fax: {phone:+49 30 23125 124}
téléphone : {phone:01 99 00 12 34}
Ring {phone:+1-202-555-0173} or {phone:+1 (202) 555-0174}.
WhatsApp {phone:+55 11 91234-5678}
Phone: {phone:202.555.0108}
{phone:+81 3-5555-0123} is the number of the hotel.
Tfno. {phone:+34 91 123 45 67}
Text {phone:+91 98450 12345} to confirm your seat.
contact number {phone:+353 1 555 0199}
Hotline: {phone:0800 496 0123}
Her cell is {phone:415 555 0132}.
Ruf an: {phone:+43 1 58858 0}
{phone:+1 650.555.0111} x204
Failed login for root from {ip:91.198.174.192} port 40022 ssh2
{ip:66.249.66.1} - - [26/Aug/2002:15:13:56 +0100] "GET /a HTTP/1.0" 200 512
Received: from mail.example.org ([{ip:17.57.144.100}]) by mx.example.net
nameserver {ip:8.8.4.4}
ping {ip:1.1.1.1} works from here
Allow from {ip:185.60.216.35}/32
http://{ip:198.105.244.104}:8080/status
AAAA {ip:2a03:2880:f12f:83:face:b00c:0:25de}
inet6 {ip:2001:67c:4e8:f004::9}/64
connect to [{ip:2620:0:862:ed1a::1}]:443
The address {ip:5.9.243.187} was banned.
client={ip:203.0.114.77}, user=-
peer {ip:2400:cb00:2048:1::6814:155} timed out
Bitte auf {iban:DE89 3704 0044 0532 0130 00} überweisen.
IBAN: {iban:GB33BUKB20201555555555}
Konto {iban:AT611904300234573201} bei der Bank
Compte {iban:FR76 3000 6000 0112 3456 7890 189}
IBAN {iban:PL61109010140000071219812874}, BIC WBKPPLPP
Rekening {iban:NL20 INGB 0001 2345 67}
{iban:SE4550000000058398257466}
Conto: {iban:IT60X0542811101000000123456}
pay into {iban:IE29 AIBK 9311 5212 3456 78} please
cuenta {iban:ES79 2100 0813 6101 2345 6789}
{iban:PT50 0002 0123 1234 5678 9015 4}
Card number: {card:4242 4242 4242 4242}, exp. 12/29
Visa {card:4012888888881881} was declined
MC {card:5105-1051-0510-5100}
amex {card:371449635398431} on file
charged to {card:6011 1111 1111 1117} yesterday
"number": "{card:5200828282828210}"
JCB {card:3566002020360505}
Paid with {card:4000056655665556}.
Diners {card:3056 9309 0259 04}
Karte {card:2223003122003222} gesperrt
SSN {national_id:536-90-4399}
Social security number: {national_id:219-09-9998}
ssn={national_id:457555462}
The applicant, {national_id:515-62-1234}, lives in Ohio.
National Insurance number {national_id:NX 12 34 56 C}
NI no. {national_id:AB123456D}
Steuer-ID {national_id:65 929 970 489}
DNI {national_id:99999999R}
NIE {national_id:Y7654321G}
PESEL: {national_id:90090515836}
CPF {national_id:123.456.789-09}
codice fiscale {national_id:MRTMTT91D08F205J}
personnummer {national_id:850709-9805}
HETU {national_id:131052-308T}
numéro de sécurité sociale {national_id:1 84 12 76 451 089 46}
""".strip().splitlines()

INNOCENT_LINES = """
Upgrade from 2.6.32.71 to 4.19.0.6 before the weekend.
Firmware 12.4.8.1 and driver version 21.20.16.4550 are needed.
openssl 1.0.2.11, see section 4.3.2.1 of the manual
Chrome/91.0.4472.124 Safari/537.36
Assembly Version=4.0.0.0, Culture=neutral
The OID is 1.3.6.1.4.1.311.21.8
build 10.0.19041.1288
ISBN 978-0-13-110362-7 and ISBN 0-201-63361-2
ISBN-13: 9780131103627, ISBN-10: 0131103628
ISSN 0317-8471, ISSN 2049-3630
EAN 4006381333931 on the box, UPC 036000291452
born on 12.05.1968, died on 03-11-2004
2021-03-04T12:34:56.789Z and 20210304T123456
Mon Sep 17 00:00:00 2001
On 1999/12/31 23:59:59 nothing happened.
the years 1914-1918 and 1939-1945
from 01.02.2003 to 04.05.2006
08/15/1947 at 00:15
md5 9e107d9d372bb6826bd81d3542a419d6
sha1 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12
sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
crc32 414fa339, adler 5bdc0fda
ether 00:1b:44:11:3a:b7 brd ff:ff:ff:ff:ff:ff
MAC 00-1B-44-11-3A-B7 or 001b.4411.3ab7
f47ac10b-58cc-4372-a567-0e02b2c3d479
InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3, CAS 64-17-5
52.520008, 13.404954 is in Berlin
40°26'46"N 79°58'56"W
1 000 000 000 people and 12 500 000 houses
a budget of 1,250,000,000 dollars
3 141 592 653 589 793
0.5772156649015328606
6.02214076e23 per mole
f(x) = 100 200 300 400 500 600
1 2 3 4 5 6 7 8 9 10 11 12 13
10 20 30 40 50 60 70 80 90
score 6-4, 3-6, 7-6 (7-5), 6-3
Order no. 4500123456 of 3 May
Invoice 2021-000123-45
tracking 1Z999AA10123456784
RFC 4291, section 2.5.5.2
arXiv:1706.03762v5, doi:10.1038/s41586-020-2649-2
US Patent 6,285,999
Route 66, Highway 101, Exit 12B
room 415, floor 2, desk 671
127.0.0.1 localhost, 0.0.0.0/0, 255.255.255.0
192.168.178.1 and 172.16.0.1 are private; 169.254.1.1 is local
fe80::a00:27ff:fe4e:66a1%eth0
::ffff:0:0/96, 2001:db8:85a3::8a2e:370:7334
std::chrono::milliseconds and a::b::c
12:34:56:78 of the film
00:00:01,600 --> 00:00:04,200
drwxr-xr-x 2 1000 1000 4096 2021
PID 12345 (4567) 89012
commit 83db48f7a1b2c3d4, parent bf2a9c1
0xdeadbeef 0x00007ffd5e8f 0b101010
1609459200 is a time, 1609459200000 too
4111 1111 1111 1121 fails its check
1234567890123456 is no card
5555 5555 5555 5555 4444 is too long
ES12 3456 7890 1234 5678 9012 is no account
GB00 WEST 1234 5698 7654 32
XX89 3704 0044 0532 0130 00
000-45-6789, 900-45-6789, 536-00-4399 and 536-90-0000 were never given out
300.168.2.45 and 45.300.1.77 are no addresses
+999 12 34 56 78 is of no country
12 345 678 903 and 11 223 344 561 are no Steuer-ID
123-456-789, 12-34-56
user@host, root@localhost:~$
foo@2.0.1, @angular/core@12.1.0, lib@^1.0
image@3x.png and sprite@2x.svg
git@github.com:torvalds/linux.git
The @property decorator, @media (min-width: 600px)
price: $1,999.99 (was $2,499.99)
Psalm 119:105-112, John 3:16
Size 32-34-36, waist 28
50-60-70 percent
8 bit, 16 bit, 32 bit, 64 bit
+5 -3 +12, +1000 points, +0.25%
1080 1920 2160 3840
ABCD12E34F567G89
AB12CD34EF56
QQ 12 34 56 C is on every specimen
SN: 4CE0460D0G, P/N 653955-001
IPv6 and IPv4, port 65535
call 911 or 112
Windows 10.0, Office 16.0.13127
""".strip().splitlines()

MARK = re.compile(r"\{(\w+):([^{}]+)\}")


def unmarked(line: str) -> tuple[str, list[tuple[str, int, str]]]:
    """A line without its marks, and (kind, first byte, value) of each."""
    text, values, at = "", [], 0
    for match in MARK.finditer(line):
        text += line[at : match.start()]
        values.append((match[1], len(text.encode()), match[2]))
        text, at = text + match[2], match.end()
    return text + line[at:], values
