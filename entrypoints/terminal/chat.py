"""The chat: lines from the keyboard, answers on the screen, until /quit."""

from contextlib import suppress

from chatback.client import ChatBack, ChatBackError
from chatback.v1.auth_service_pb2 import LogoutRequest
from chatback.v1.conversation_pb2 import MESSAGE_STATUS_STREAMING
from chatback.v1.model_service_pb2 import ListModelsRequest
from entrypoints.settings import Settings
from entrypoints.terminal.answers import Answers
from entrypoints.terminal.conversations import Conversations
from entrypoints.terminal.ctrl_c import CtrlC, Interrupted
from entrypoints.terminal.failures import TerminalError, address, plain_errors
from entrypoints.terminal.keyboard import Keyboard
from entrypoints.terminal.screen import Screen
from entrypoints.terminal.sign_in import connect, log_in

INTERRUPTED = 130
GOODBYE_SECONDS = 2
HELP = """\
/new           begins a new conversation
/list          lists your conversations, the newest first
/open WHICH    goes on with one: its number in /list, or the beginning of its id
/regenerate    has the last answer made anew, beside the old one
/help          shows this
/quit          leaves, and so do Ctrl-D and, at the prompt, Ctrl-C
Ctrl-C stops an answer. Anything else is said to the model."""


async def chat(settings: Settings, email: str | None, password: str | None, conversation_id: str | None) -> int:
    """Talks until the input ends and returns the exit status.

    On a terminal, what goes wrong with one line is shown and the chat goes on; from a pipe it ends the chat.
    Raises TerminalError.
    """
    keyboard, screen = Keyboard(), Screen()
    with keyboard.restored():
        signed_in = await log_in(settings, email, password)
        async with connect(settings, signed_in.tokens) as service:
            try:
                talk = Chat(settings, service, screen, keyboard)
                await talk.begin(signed_in.user.email, conversation_id)
                return await talk.run()
            finally:
                with suppress(ChatBackError):
                    await service.auth.Logout(LogoutRequest(), timeout=GOODBYE_SECONDS)


class Chat:
    """One person's talk with the service."""

    def __init__(self, settings: Settings, service: ChatBack, screen: Screen, keyboard: Keyboard) -> None:
        self._settings = settings
        self._service = service
        self._screen = screen
        self._keyboard = keyboard
        self._ctrl_c = CtrlC()
        self._answers = Answers(service, screen, keyboard, self._ctrl_c)
        self._conversations = Conversations(service)
        self._conversation_id = ""

    async def begin(self, email: str, conversation_id: str | None) -> None:
        """Greets, and opens the conversation if one is named. Raises TerminalError."""
        with plain_errors(self._settings):
            if self._keyboard.is_terminal:
                await self._greet(email)
            if conversation_id is not None:
                await self._open(conversation_id, shows_it=self._keyboard.is_terminal)

    async def run(self) -> int:
        """Obeys line by line and returns the exit status. Raises TerminalError where nobody could react to it."""
        while (line := await self._next_line()) is not None:
            try:
                await self._ctrl_c.ends(self._obey(line))
            except Interrupted:
                if not self._keyboard.is_terminal:
                    return INTERRUPTED
            except TerminalError as error:
                if not self._keyboard.is_terminal:
                    raise
                self._screen.error(str(error))
            if self._keyboard.is_terminal:
                self._screen.gap()
        return 0

    async def _next_line(self) -> str | None:
        """Returns the next line that is not empty, None if there is none or it says to leave."""
        line = ""
        while not line.strip():
            try:
                line = await self._ctrl_c.ends(self._keyboard.line())
            except Interrupted:
                return None
            except EOFError:
                if self._keyboard.is_terminal:
                    self._screen.gap()
                return None
        return None if line.strip() == "/quit" else line

    async def _obey(self, line: str) -> None:
        command, _, argument = line.strip().partition(" ")
        with plain_errors(self._settings):
            match command:
                case "/help":
                    self._screen.say(HELP)
                case "/new":
                    self._conversation_id = ""
                    self._screen.note("your next line begins a new conversation")
                case "/list":
                    await self._list()
                case "/open":
                    await self._open(argument.strip())
                case "/regenerate":
                    await self._regenerate()
                case _ if line.startswith("/"):
                    raise TerminalError(f"there is no {command}; /help shows what there is (a space before / sends it)")
                case _:
                    await self._ask(line.encode(errors="replace").decode())

    async def _greet(self, email: str) -> None:
        models = await self._service.models.ListModels(ListModelsRequest())
        model = next((model.name for model in models.models if model.is_default), "no model")
        self._screen.note(f"ChatBack on {address(self._settings)} · {model} · {email} · /help")
        self._screen.gap()

    async def _list(self) -> None:
        if newest := await self._conversations.newest():
            self._screen.conversations(newest)
        else:
            self._screen.note("there is none yet; your next line begins one")

    async def _open(self, which: str, *, shows_it: bool = True) -> None:
        """Goes on with a conversation: shows its last messages, and an answer that is being made to its end."""
        conversation = await self._conversations.find(which)
        self._conversation_id = conversation.conversation_id
        if not shows_it:
            return
        messages = list(await self._conversations.last_messages(conversation))
        unfinished = [message for message in messages if message.status == MESSAGE_STATUS_STREAMING]
        self._screen.note(conversation.title or "(no title)")
        self._screen.messages(message for message in messages if message not in unfinished)
        for message in unfinished:
            await self._answers.show(self._service.watch(message.run_id))

    async def _regenerate(self) -> None:
        """Asks for another answer to the last question of the branch in use."""
        if not (answer := await self._conversations.last_answer(self._conversation_id)):
            raise TerminalError("there is no answer yet that could be made anew")
        await self._answers.show(self._service.regenerate(answer))

    async def _ask(self, question: str) -> None:
        if not self._conversation_id:
            self._conversation_id = await self._conversations.create(question)
        await self._answers.show(self._service.send(self._conversation_id, question))
