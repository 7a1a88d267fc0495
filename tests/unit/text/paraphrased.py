"""Questions as an evaluation would ask them, each also asked in other words, and other texts.

`RELATED` texts are of the same fields as the questions but ask something else; `TWINS` ask in the
same way for another fact, which vectors hardly tell from a paraphrase.
"""

PAIRS = [
    (
        "A train leaves the station at nine in the morning and travels at sixty miles an hour. "
        "How many miles has it covered by noon?",
        "Departing at 9 a.m., a train keeps a constant speed of 60 mph. "
        "What distance in miles lies behind it at 12 o'clock?",
    ),
    (
        "Maria buys three notebooks for two dollars each and a pen for five dollars. "
        "How much money does she spend in total?",
        "Three notebooks cost Maria $2 apiece, and she also pays $5 for a pen. "
        "What is the sum that she spends altogether?",
    ),
    (
        "Which organelle of a plant cell carries out photosynthesis and holds the green pigment "
        "chlorophyll?",
        "In the cells of plants, what is the organelle called that contains green chlorophyll and "
        "in which photosynthesis takes place?",
    ),
    (
        "Why does the moon show different phases over the course of about one month?",
        "What is the reason that over roughly a month we see the moon pass through its phases?",
    ),
    (
        "A farmer has seventeen sheep and all but nine run away. How many sheep are left to him?",
        "Of the 17 sheep that a farmer owns every one except nine escapes. "
        "What number of sheep does the farmer still have?",
    ),
    (
        "Which gas makes up the largest part of the air in the atmosphere of the Earth?",
        "Of all gases in the Earth's atmosphere, which is the most abundant one in the air?",
    ),
    (
        "What happens to the volume of a gas when its pressure doubles while the temperature "
        "stays the same?",
        "The temperature of a gas is held constant and its pressure is made twice as large; "
        "how does the volume of the gas change?",
    ),
    (
        "In which year did the Berlin Wall fall, opening the border between East and West Germany?",
        "What year was it when the wall in Berlin came down and the frontier between the two "
        "Germanies, East and West, was opened?",
    ),
    (
        "A rectangle is twice as long as it is wide and its perimeter is thirty centimetres. "
        "What is its area?",
        "The perimeter of a rectangle measures 30 cm and its length is double its width. "
        "Find the area of this rectangle.",
    ),
    (
        "Which part of the human brain is mainly responsible for balance and for the coordination "
        "of movements?",
        "Balance and coordinated movement are controlled above all by one region of the human "
        "brain. Name that region.",
    ),
    (
        "To clean a silver spoon that has turned black at home, what should be put in the bowl of "
        "hot water with aluminium foil?",
        "You want to clean a blackened silver spoon at home using hot water and aluminium foil; "
        "which substance do you add to the bowl?",
    ),
    (
        "Who wrote the novel in which a captain named Ahab hunts a white whale across the oceans?",
        "Captain Ahab chases a white whale over the seas: which author is this novel by?",
    ),
    (
        "Why do metal objects feel colder to the hand than wooden ones at the same room "
        "temperature?",
        "When touched in the same room, things of metal seem colder than things of wood although "
        "their temperature is equal. What is the explanation?",
    ),
    (
        "A shop lowers the price of a coat from eighty dollars by twenty-five percent. "
        "What does the coat cost now?",
        "The coat was $80 and the store takes 25% off. What is the new price of the coat?",
    ),
    (
        "Which process moves water across a membrane from a dilute solution to a concentrated one?",
        "By what process does water pass through a membrane out of the dilute and into the more "
        "concentrated solution?",
    ),
    (
        "If five machines make five parts in five minutes, how long do one hundred machines need "
        "to make one hundred parts?",
        "Five parts are produced in 5 minutes by five machines. In what time will 100 machines "
        "produce 100 parts?",
    ),
    (
        "Which treaty ended the First World War between Germany and the Allied powers in 1919?",
        "What was the name of the 1919 peace treaty that brought World War I between the Allies "
        "and Germany to its end?",
    ),
    (
        "What is the main function of red blood cells in the human body?",
        "Tell what red blood cells chiefly do in the body of a human being.",
    ),
    (
        "How many different ways are there to arrange the letters of the word LEVEL in a row?",
        "In how many distinct orders can one write down the letters of the word LEVEL?",
    ),
    (
        "Which layer of the atmosphere holds the ozone that protects living things from "
        "ultraviolet light?",
        "The ozone that shields life from UV radiation: in what layer of the atmosphere is it "
        "found?",
    ),
    (
        "What would most likely happen to a population of rabbits if all the foxes that hunt them "
        "were removed?",
        "Suppose every fox that preys on a rabbit population disappears. What is the most probable "
        "consequence for the number of rabbits?",
    ),
    (
        "A ball is thrown straight up and comes back after four seconds. "
        "How high did it rise, if air is neglected?",
        "Ignoring the resistance of the air, what height is reached by a ball that is thrown "
        "vertically upward and returns 4 s later?",
    ),
    (
        "Which planet of the solar system has the shortest year, and which is nearest to the sun?",
        "Name the planet in our solar system that is closest to the sun and whose year is the "
        "shortest.",
    ),
    (
        "What does the Latin phrase habeas corpus mean in law, and against what does it protect a "
        "prisoner?",
        "In legal terms, what is meant by habeas corpus, and from what does it safeguard somebody "
        "who is imprisoned?",
    ),
    (
        "Tom is twice as old as his sister, and in five years their ages will add up to forty. "
        "How old is Tom today?",
        "Today Tom's age is double that of his sister. Five years from now the two ages sum to 40. "
        "What is Tom's present age?",
    ),
    (
        "Why is table salt added to the ice around the tub when ice cream is made by hand?",
        "When people make ice cream by hand, for what reason do they put salt on the ice that "
        "surrounds the tub?",
    ),
    (
        "Which instrument measures the pressure of the air and helps to forecast the weather?",
        "What is the device called with which air pressure is measured for weather forecasts?",
    ),
    (
        "What is the sum of the interior angles of a regular hexagon in degrees?",
        "Adding up all interior angles of a hexagon that is regular, how many degrees does one "
        "get?",
    ),
    (
        "Which economist described the invisible hand of the market in a book of 1776?",
        "In 1776 a book spoke of the market's invisible hand; which economist wrote it?",
    ),
    (
        "A recipe for four people needs three hundred grams of flour. "
        "How much flour is needed for ten people?",
        "For 4 persons the recipe takes 300 g of flour. What amount of flour will 10 persons "
        "require?",
    ),
]
"""(as the evaluation asks, in other words)."""

UNRELATED = [
    "The library opens at ten and closes at six, and the reading room on the second floor may be "
    "booked by groups of up to twelve people for two hours at a time.",
    "My grandmother kept her letters in a tin box under the stairs, tied with a ribbon that had "
    "once been blue, and nobody was allowed to read them while she lived.",
    "To install the package, unpack the archive, change into its folder and run the configure "
    "script; the manual page explains every option in some detail.",
    "The council voted on Tuesday to widen the cycle path along the river, after residents had "
    "complained for years about the narrow bridge near the mill.",
    "She poured the batter into a buttered tin, smoothed the top with a wet spoon and slid it into "
    "the oven, where it rose slowly and filled the kitchen with the smell of oranges.",
    "Our team lost the match in the last minute when the goalkeeper slipped on the wet grass and "
    "the ball rolled past him into the corner of the net.",
    "The kernel writes dirty pages back when the limit is reached, and a process that dirties "
    "memory faster than the disk can follow is made to wait.",
    "Rent is due on the first of each month, and the tenant shall give three months' notice in "
    "writing before the flat is returned clean and with all keys.",
    "The violinist tuned her instrument, nodded to the pianist and began the slow movement before "
    "the late guests had found their seats.",
    "In the dry season the herders move north with their cattle, and the villages along the road "
    "stand half empty until the first rain falls.",
    "Please find attached the minutes of last week's meeting; corrections can be sent to the "
    "secretary until Friday evening.",
    "The hotel lies ten minutes from the beach, breakfast is served on the terrace, and dogs are "
    "welcome for a small charge.",
    "He sanded the table for two days, oiled it twice and let it dry in the yard, and in the end "
    "it looked better than anything in the shop windows.",
    "The museum has lent four of its portraits to a gallery abroad, where they will be shown "
    "beside drawings that have never left the family's house.",
    "When the fog lifted we saw the lighthouse and two small boats, whose nets were already drawn "
    "in, heading slowly for the harbour.",
    "The new release fixes a crash when a window is closed during printing and adds a dark theme "
    "that many users had wished for.",
    "Knit two, purl two to the end of the row; repeat until the scarf is as long as you are tall, "
    "then cast off loosely.",
    "The judge adjourned the hearing until spring, since one of the witnesses was at sea and could "
    "not be reached by the court.",
    "Tomatoes like a sunny wall and regular watering; pinch out the side shoots and tie the stems "
    "to a stick before they grow heavy.",
    "The band played until two, and when the lights came on the dancers stood about as if nobody "
    "had told them where they lived.",
]
"""Of nothing that is asked."""

RELATED = [
    "The train from the coast arrives at noon on weekdays; passengers who change to the mountain "
    "line should allow a quarter of an hour between platforms.",
    "Notebooks and pens are sold in the school shop, and the money that is earned goes to the fund "
    "for the summer trip.",
    "Leaves turn yellow in autumn because the plant takes back what it can use before the leaf is "
    "dropped, and other colours come to be seen.",
    "A lunar eclipse is seen when the moon passes through the shadow of the Earth, which can only "
    "be at full moon.",
    "Sheep are shorn in early summer; a good shearer finishes more than a hundred in a day, and "
    "the wool is sorted and packed on the farm.",
    "Carbon dioxide in the atmosphere has risen since factories began to burn coal, and the oceans "
    "have taken up about a quarter of it.",
    "A gas heater must be looked at once a year, and the pressure in the pipes has to be noted by "
    "the fitter.",
    "Berlin has more bridges than Venice, and on warm evenings its people sit along the canals "
    "with their feet above the water.",
    "The carpet is three metres wide and can be cut to any length; measure the room twice before "
    "you order it.",
    "The brain uses about a fifth of the energy of the body at rest, although it is only a small "
    "part of its weight.",
    "Silver coins were worth more than their face during the war, and many families melted them "
    "or hid them in the garden.",
    "Whales sing under water, and their songs can be heard by others of their kind across "
    "hundreds of kilometres of ocean.",
    "The winter sale begins on Monday, and coats, boots and scarves are on the second floor this "
    "year.",
    "Red wine stains come out more easily when they are treated at once with cold water, long "
    "before they have dried.",
    "The factory runs in three shifts, and its machines are stopped for two weeks each August to "
    "be taken apart and oiled.",
    "Rabbits dig long burrows in sandy soil, and gardens near such places need a fence that goes "
    "a good way into the ground.",
    "Mercury was used in thermometers for two centuries, until its vapour was found to be "
    "dangerous and other liquids took its place.",
    "A lawyer may speak with a prisoner alone, and letters between the two are not opened by the "
    "guards.",
    "His sister is a teacher in the next town, five years older than he is, and comes to visit on "
    "Sundays with her children.",
    "Vanilla ice cream goes well with warm cherries; let it stand for some minutes out of the "
    "freezer before it is served.",
]
"""Of the same fields, but of something else."""

TWINS = [
    "A train leaves the station at eight in the morning and travels at fifty miles an hour. "
    "How many miles has it covered by three?",
    "Which organelle of a cell makes proteins and is found on the rough membrane around the "
    "nucleus?",
    "Which gas makes up the second largest part of the air in the atmosphere of the Earth?",
    "In which year was the Berlin Wall built, closing the border between East and West Berlin?",
    "Which part of the human brain is mainly responsible for memory and for learning?",
    "Which treaty ended the Thirty Years' War between Sweden and the Emperor in 1648?",
    "What is the main function of white blood cells in the human body?",
    "How many different ways are there to arrange the letters of the word BANANA in a row?",
    "Which planet of the solar system has the longest day, and which is farthest from the sun?",
    "Which instrument measures the speed of the wind and is often seen on the roofs of stations?",
]
"""Asked in the same way, but for another fact."""
