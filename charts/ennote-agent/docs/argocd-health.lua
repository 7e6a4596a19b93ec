-- Argo CD's health of an EnnoteSecretBinding. It says what kstatus (Helm, Flux) says, in Argo CD's words:
-- Stalled is Degraded, in progress is Progressing, current is Healthy.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function said(kind, otherwise)
  local condition = conditions[kind]
  if condition ~= nil and condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return otherwise
end

-- -1 is what the schema gives a binding that no agent has seen. Without this line the state of the spec before an edit would
-- count for the edited one, and the next sync wave would start too early.
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the agent has not seen this generation yet"}
end

-- Somebody's wish, and no fault. In a sync of several waves, Argo CD waits here until it is resumed.
if obj.spec.suspend == true then
  local ready = conditions.Ready
  local prefix = "suspended; "
  if ready ~= nil and ready.reason == "Suspended" then
    prefix = ""
  end
  return {status = "Suspended", message = prefix .. said("Ready", "never synced")}
end

-- The only state in which a person must act. Ready False alone is tried again by the agent itself.
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return {status = "Degraded", message = said("Stalled", "stalled")}
end

local ready = conditions.Ready
if ready == nil or ready.status ~= "True" then
  return {status = "Progressing", message = said("Ready", "the agent has begun")}
end

-- The Secret is right. A rollout that failed is shown but does not degrade the binding: the workload itself is Degraded in
-- Argo CD already, in the application that owns it, and a later sync wave must not wait for one that this wave cannot mend.
-- A cloud that is silent leaves the Secret as good as it was.
local message = said("Ready", "synced")
local rolled = conditions.RolledOut
if rolled ~= nil and rolled.status ~= "True" then
  message = message .. "; restarts: " .. said("RolledOut", rolled.reason)
end
if conditions.Fresh ~= nil and conditions.Fresh.status == "False" then
  message = message .. "; " .. said("Fresh", conditions.Fresh.reason)
end
return {status = "Healthy", message = message}
