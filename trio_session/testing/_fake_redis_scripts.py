"""Lua scripts, run as Redis runs them: by Lua 5.1, with the same conversions and the same errors. Pure."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from ._fake_redis_replies import Answer, CommandError, Status

__all__ = ["Scripts"]

Call = Callable[[list[bytes]], Answer]

# What scripts see, and how they are run. No cjson, cmsgpack, struct and bit: our scripts do without.
_PRELUDE: Final = b"""
local command, sha1hex = ...
local globals = {
  redis = {
    pcall = function(...) return command(...) end,
    call = function(...)
      local reply = command(...)
      if type(reply) == 'table' and reply.err then error(reply, 0) end
      return reply
    end,
    sha1hex = function(...)
      if select('#', ...) ~= 1 then error('wrong number of arguments', 0) end
      return sha1hex((...))
    end,
  },
  math = math, string = string, table = table,
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, select = select,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
}
setmetatable(globals, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
  __newindex = function() error('Attempt to modify a readonly table', 2) end,
})

-- What was raised, and in which line of the script.
local function locate(raised)
  local text = type(raised) == 'table' and raised.err or 'ERR ' .. tostring(raised)
  local level, frame = 2, debug.getinfo(2, 'Sl')
  while frame and frame.source ~= '@user_script' do
    level = level + 1
    frame = debug.getinfo(level, 'Sl')
  end
  return {text, frame and frame.currentline or 0}
end

local function load(text)
  local script, problem = loadstring(text, '@user_script')
  return script and setfenv(script, globals), problem
end
local function run(script, keys, arguments)
  rawset(globals, 'KEYS', keys)
  rawset(globals, 'ARGV', arguments)
  local fine, result = xpcall(script, locate)
  return fine, result  -- two values, whatever the script returned
end
return load, run
"""


class Scripts:
    """The scripts that a server knows, by digest.

    Raises:
        ImportError: lupa is not installed.
    """

    def __init__(self) -> None:
        try:
            self._lua: Any = importlib.import_module("lupa.lua51")
        except ImportError as error:
            raise ImportError(
                "the fake Redis server runs Lua scripts, for which it needs lupa: pip install trio_session[test]"
            ) from error
        self._runtime = self._lua.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self._load, self._run = self._runtime.execute(_PRELUDE, self._command, _sha1hex)
        self._scripts: dict[bytes, Any] = {}
        self._call: Call | None = None  # of the script that runs

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._scripts

    def forget(self) -> None:
        """As after a restart, or SCRIPT FLUSH."""
        self._scripts.clear()

    def load(self, text: bytes) -> bytes:
        """Compile a script and return its digest."""
        digest = _sha1hex(text)
        if digest not in self._scripts:
            script, problem = self._load(text)
            if script is None:
                raise CommandError(b"ERR Error compiling script (new function): %b" % problem)
            self._scripts[digest] = script
        return digest

    def run(self, digest: bytes, keys: Sequence[bytes], arguments: Sequence[bytes], call: Call) -> Answer:
        """Run a script.

        Args:
            digest: its name.
            keys: its KEYS.
            arguments: its ARGV.
            call: executes a command of the script; raises CommandError.

        Raises:
            CommandError: the script ended with an error.
        """
        table = self._runtime.table_from
        self._call = call
        try:
            fine, result = self._run(self._scripts[digest], table(keys), table(arguments))
        finally:
            self._call = None
        if not fine:
            text, line = result[1], result[2]
            raise CommandError(b"%b script: %b, on @user_script:%d." % (text, digest, line))
        return self._from_lua(result)

    def _command(self, *words: object) -> object:
        """redis.pcall: an error is a reply."""
        assert self._call is not None
        try:
            return self._to_lua(self._call(_to_words(words)))
        except CommandError as error:
            return self._to_lua(error)

    def _to_lua(self, answer: Answer) -> object:
        match answer:
            case None:
                return False
            case Status():
                return self._runtime.table_from({b"ok": bytes(answer)})
            case CommandError():
                return self._runtime.table_from({b"err": answer.text})
            case list():
                return self._runtime.table_from([self._to_lua(each) for each in answer])
            case _:
                return answer

    def _from_lua(self, value: Any) -> Answer:
        match value:
            case bytes():
                return value
            case bool():
                return 1 if value else None
            case int() | float():
                return int(value)
            case _ if self._lua.lua_type(value) == "table":
                return self._from_table(value)
            case _:
                return None

    def _from_table(self, table: Any) -> Answer:
        if isinstance(table[b"err"], bytes):
            return CommandError(table[b"err"])
        if isinstance(table[b"ok"], bytes):
            return Status(table[b"ok"])
        elements: list[Answer] = []
        while (element := table[len(elements) + 1]) is not None:
            elements.append(self._from_lua(element))
        return elements


def _to_words(words: tuple[object, ...]) -> list[bytes]:
    if not words:
        raise CommandError("ERR Please specify at least one argument for this redis lib call")
    return [_to_word(word) for word in words]


def _to_word(word: object) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, int | float) and not isinstance(word, bool):
        return b"%.17g" % word
    raise CommandError("ERR Lua redis lib command arguments must be strings or integers")


def _sha1hex(text: object) -> bytes:
    data = text if isinstance(text, bytes) else _to_word(text)
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
