# shellcheck shell=bash
# Processes that are started in the background and ended by their pid. A pid file holds the pid and the time
# at which the process started, so that a pid which the kernel has given to someone else is never signalled.

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Fields of /proc/PID/stat after the command name (which may hold blanks): state is 0, session 3, start time 19.
process_field() {
  local stat
  # The redirection fails when the process is gone.
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  local -a fields
  read -ra fields <<<"${stat##*) }"
  echo "${fields[$2]}"
}

# Renamed into place: a watcher that reads half a record would take the process for gone, and remove what it owns.
record_process() {
  local draft
  draft=$2.$BASHPID
  echo "$1 $(process_field "$1" 19 || echo gone)" >"$draft"
  mv -f -- "$draft" "$2"
}

process_pid() {
  local pid start
  read -r pid start <"$1" && echo "$pid"
}

process_is_alive() {
  local pid start
  [[ -f $1 ]] && read -r pid start <"$1" || return 1
  [[ $(process_field "$pid" 19) == "$start" && $(process_field "$pid" 0) != Z ]]
}

# wait_until SECONDS CONDITION...: 0 once the condition holds, 1 at the deadline, 2 when it answers 2 (hopeless).
wait_until() {
  local deadline=$((SECONDS + $1)) code
  shift
  while true; do
    code=0
    "$@" || code=$?
    ((code == 0 || code == 2)) && return "$code"
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

session_members() {
  local stat_file pid
  for stat_file in /proc/[0-9]*/stat; do
    pid=${stat_file#/proc/}
    pid=${pid%/stat}
    if [[ $(process_field "$pid" 3) == "$1" && $(process_field "$pid" 0) != Z ]]; then echo "$pid"; fi
  done
}

is_gone() { ! process_is_alive "$1"; }
session_is_empty() { [[ -z $(session_members "$1") ]]; }

# end_process PID_FILE SECONDS: TERM, then KILL at the deadline; returns when the process, and what it started
# in its session (setsid), is gone.
end_process() {
  local pid_file=$1 deadline_s=$2 pid
  if process_is_alive "$pid_file"; then
    pid=$(process_pid "$pid_file")
    kill -CONT "$pid" 2>/dev/null || true # it may be frozen by a test
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_until "$deadline_s" is_gone "$pid_file"; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
    if ! wait_until 5 session_is_empty "$pid"; then
      session_members "$pid" | xargs -r kill -KILL 2>/dev/null || true
      wait_until 5 session_is_empty "$pid" || die "process $pid could not be ended"
    fi
  fi
  rm -f "$pid_file"
}

group_is_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

# end_group PGID SECONDS: the same for a process group that this shell started.
end_group() {
  group_is_gone "$1" && return 0
  kill -TERM -- "-$1" 2>/dev/null || true
  if ! wait_until "$2" group_is_gone "$1"; then kill -KILL -- "-$1" 2>/dev/null || true; fi
}

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port MIN MAX [TAKEN...]: a port of the range on which nothing listens now. Another process may take it
# before it is bound: who binds it has to try again with another.
free_port() {
  local min=$1 max=$2 port
  shift 2
  while true; do
    port=$((min + SRANDOM % (max - min + 1)))
    [[ " $* " == *" $port "* ]] && continue
    port_is_open "$port" || break
  done
  echo "$port"
}

# http_status PORT PATH: the status code of a GET on loopback, without curl.
http_status() {
  local status_line
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&3
    IFS= read -r -t 5 status_line <&3 || status_line=
    exec 3>&-
  } 2>/dev/null
  status_line=${status_line#* }
  echo "${status_line%% *}"
}
